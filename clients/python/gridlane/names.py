"""Resource names as people and programs give them.

Responsible for accepting "jobs/<uuid>" and the bare uuid alike, and for refusing what can be
neither before it is sent.
"""

from __future__ import annotations

import re

_UUID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")


def job_name(text: str) -> str:
    """ "jobs/<uuid>", from that, from "tasks/<uuid>" (a task has its job's id) or from the bare id.

    Raises:
        ValueError: it is none of these.
    """
    return _name(text, "jobs", "tasks")


def transfer_name(text: str) -> str:
    """ "transfers/<uuid>", from that or from the bare id.

    Raises:
        ValueError: it is neither.
    """
    return _name(text, "transfers")


def file_transfer_name(text: str) -> str:
    """ "transfers/<uuid>/files/<n>", from that or from "<uuid>/files/<n>".

    Raises:
        ValueError: it is neither.
    """
    job, _, number = text.strip().partition("/files/")
    if not number.isdecimal() or number.startswith("0"):
        raise ValueError(
            f"{text!r} is not a name of a file: expected transfers/<uuid>/files/<n>, n from 1"
        )
    return f"{transfer_name(job)}/files/{number}"


def role_binding_name(text: str) -> str:
    """ "roleBindings/<uuid>", from that or from the bare id.

    Raises:
        ValueError: it is neither.
    """
    return _name(text, "roleBindings")


def audit_entry_name(text: str) -> str:
    """ "auditEntries/<uuid>", from that or from the bare id.

    Raises:
        ValueError: it is neither.
    """
    return _name(text, "auditEntries")


def group_name(text: str) -> str:
    """ "vos/<vo>/groups/<group>", from that or from "<vo>/<group>".

    Raises:
        ValueError: it is neither.
    """
    parts = text.strip().split("/")
    match parts:
        case ["vos", vo, "groups", group] | [vo, group] if vo and group:
            return f"vos/{vo}/groups/{group}"
    raise ValueError(f"{text!r} is not a name of a group: expected <vo>/<group>")


def storage_ban_name(text: str) -> str:
    """ "storageElements/<name>/bans/<uuid>", from that or from "<name>/<uuid>".

    Raises:
        ValueError: it is neither.
    """
    parts = text.strip().split("/")
    match parts:
        case ["storageElements", name, "bans", uuid] | [name, uuid] if name and is_uuid(uuid):
            return f"storageElements/{name}/bans/{uuid.lower()}"
    raise ValueError(f"{text!r} is not a name of a ban: expected <storage element>/<uuid>")


def collection_name(text: str, collection: str) -> str:
    """ "<collection>/<name>", from that or from the bare name."""
    return text if text.startswith(f"{collection}/") else f"{collection}/{text}"


def is_uuid(text: str) -> bool:
    """Whether a text is a uuid, in letters of either case."""
    return _UUID.fullmatch(text.lower()) is not None


def _name(text: str, collection: str, *aliases: str) -> str:
    given, _, bare = text.strip().rpartition("/")
    if given not in ("", collection, *aliases) or not is_uuid(bare):
        raise ValueError(f"{text!r} is not a name of {collection}: expected {collection}/<uuid>")
    return f"{collection}/{bare.lower()}"
