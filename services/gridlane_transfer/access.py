"""Who may touch which path: VO membership and the paths of token scopes, for every name a call
gives; and who may set which tags.

Responsible for turning the kit's decision into an answer for one place of a storage element. The
coarse permission is decided before a handler runs; a job's visibility is the store's.
"""

from collections.abc import Iterable

from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.decision import scope_covers
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.storage.storage_elements import Located

_READ = ("storage.read",)
_CREATE = ("storage.create", "storage.modify")
_REPLACE = ("storage.modify",)
_UNREGISTER = "transfer.replicas.unregister"
_WORKLOAD = "workload"
_RESERVED = "gridlane."


def may_name_internal(call: Call) -> bool:
    """Whether the caller may name internal elements: the workload service, on behalf of a job's
    owner.
    """
    return call.principal.actor == _WORKLOAD


def require_free_tags(call: Call, tags: Iterable[str]) -> None:
    """Refuse tags that only the workload service sets: they tie a transfer to somebody's job.

    Parameters:
        tags: their keys.

    Raises:
        GridlaneError: INVALID_FIELDS that names each.
    """
    reserved = sorted(tag for tag in tags if tag.startswith(_RESERVED))
    if reserved and call.principal.actor != _WORKLOAD:
        why = f"keys beginning with {_RESERVED!r} are Gridlane's own"
        raise errors.invalid([(f"transfer_job.tags[{tag}]", why) for tag in reserved])


def vo_decides(call: Call) -> bool:
    """Whether the VO of a file alone says what the caller may do with it: its token says nothing of
    paths.
    """
    return call.principal.capabilities is None


def require_read(call: Call, located: Located, permission: str) -> None:
    """Refuse a caller who may not read a file as the source of a transfer.

    Raises:
        GridlaneError: PERMISSION_DENIED or SCOPE_TOO_NARROW.
    """
    if located.internal:
        return
    if located.vo not in call.principal.vos and not _reaches(call, located.vo):
        raise errors.permission_denied(permission)
    _require_scope(call, located, _READ, permission)


def require_write(call: Call, located: Located, permission: str, *, replace: bool) -> None:
    """Refuse a caller who may not write a file.

    Parameters:
        replace: whether the file may be there already, and is then replaced.

    Raises:
        GridlaneError: PERMISSION_DENIED or SCOPE_TOO_NARROW.
    """
    if located.internal:
        return
    if not _reaches(call, located.vo):
        seen = located.vo in call.principal.vos
        raise errors.permission_denied(permission, located.location.shown if seen else "")
    _require_scope(call, located, _REPLACE if replace else _CREATE, permission)


def can_see(call: Call, vo: str, path: str) -> bool:
    """Whether the caller may know of a logical file: its VO is within reach, and so is its path."""
    return _reaches(call, vo) and scope_covers(call.principal, "storage.read", path)


def require_removal(call: Call, located: Located, owner: str, name: str) -> None:
    """Refuse a caller who may not remove a file.

    Parameters:
        name: what the caller calls it, and is told of when it must not know of the file.
        owner: whose it is; empty when it is not registered.

    Raises:
        GridlaneError: NOT_FOUND for a file of a foreign VO, PERMISSION_DENIED, SCOPE_TOO_NARROW.
    """
    permission = "transfer.content.delete"
    if not call.visibility.covers(owner=owner, vo=located.vo):
        if located.vo in call.principal.vos:
            raise errors.permission_denied(permission, name)
        raise errors.not_found(name)
    _require_scope(call, located, _REPLACE, permission)


def require_removal_scope(call: Call, located: Located) -> None:
    """Refuse a caller whose token does not let it remove a file that it may remove otherwise.

    Raises:
        GridlaneError: SCOPE_TOO_NARROW.
    """
    _require_scope(call, located, _REPLACE, "transfer.content.delete")


def unregistering_refusal(call: Call, file: LogicalFile) -> errors.GridlaneError | None:
    """Why a caller may not take copies of a logical file out of the catalogue; None: it may.

    Parameters:
        file: as it is registered now.

    Returns:
        NOT_FOUND for a file of a foreign VO, as though it were not registered; PERMISSION_DENIED.
    """
    if call.visibility.covers(owner=file.owner, vo=file.vo):
        return None
    if file.vo in call.principal.vos:
        return errors.permission_denied(_UNREGISTER, file.lfn)
    return errors.not_found(file.lfn)


def require_unregistering_scope(call: Call, path: str) -> None:
    """Refuse a caller whose token does not let it take a path out of the catalogue.

    Raises:
        GridlaneError: SCOPE_TOO_NARROW.
    """
    if not scope_covers(call.principal, "storage.modify", path):
        raise errors.scope_too_narrow(_UNREGISTER, f"storage.modify:{path}")


def _reaches(call: Call, vo: str) -> bool:
    return call.visibility.everything or vo in call.visibility.vos


def _require_scope(
    call: Call, located: Located, operations: tuple[str, ...], permission: str
) -> None:
    if vo_decides(call):
        return
    if not any(scope_covers(call.principal, one, located.path) for one in operations):
        raise errors.scope_too_narrow(
            permission, " or ".join(f"{one}:{located.path}" for one in operations)
        )
