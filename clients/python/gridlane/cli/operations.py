"""What can be asked of permissions, as people write it: operations, and what they are done to.

Responsible for finding the permission that a word means, from the contracts themselves, and for
what the server is told of a resource. The question itself is put by `can.py`.
"""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from gridlane.names import is_uuid

if TYPE_CHECKING:
    from google.protobuf.descriptor import ServiceDescriptor

    from gridlane.authorization.v1.permission_pb2 import PermissionTarget
    from gridlane.client import Client

_SERVICES: Final = ("authorization", "transfer", "workload", "reporting", "gateway")

# Which permissions a verb may mean when it is done to one of these.
_OF_COLLECTION: Final[Mapping[str, str]] = {
    "jobs": "workload.",
    "tasks": "gateway.tasks.",
    "transfers": "transfer.jobs.",
    "channels": "transfer.channels.",
    "roleBindings": "authorization.roles.",
    "LFN:": "transfer.content.",
}
_KINDS: Final = (
    "jobs/<uuid>, transfers/<uuid>, channels/<name>, vos/<vo>, roleBindings/<uuid>,"
    " LFN:/<vo>/<path>, or a VO's name"
)


@lru_cache(maxsize=1)
def permissions() -> Sequence[str]:
    """Every permission that a method of the contracts asks for, in order."""
    from gridlane.type.v1 import options_pb2

    found = set()
    for service in _services():
        for method in service.methods:
            rule = method.GetOptions().Extensions[options_pb2.rule]
            found.add(rule.permission)
    return sorted(found - {""})


def permission_of(operation: str, resource: str = "") -> str:
    """The permission that an operation means: its name, or the end of just one name.

    Parameters:
        operation: "transfer.jobs.cancel", "jobs.kill", "kill".
        resource: what it is done to, which may tell which of several is meant.

    Raises:
        ValueError: it means none, or several.
    """
    known = permissions()
    if operation in known:
        return operation
    meant = [name for name in known if name.endswith(f".{operation}")]
    narrowed = [name for name in meant if name.startswith(_area(resource))]
    meant = narrowed or meant
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise ValueError(f"{operation!r} may mean {', '.join(meant)}: name one of them")
    verbs = {name.rpartition(".")[2] for name in known}
    near = difflib.get_close_matches(operation, [*known, *verbs], 3)
    hint = f"; near it are {', '.join(near)}" if near else ""
    raise ValueError(f"{operation!r} is no permission, nor the end of one{hint}")


def complete(incomplete: str) -> list[str]:
    """What a shell offers for an operation."""
    return [name for name in permissions() if name.startswith(incomplete)]


def target_of(client: Client, resource: str) -> PermissionTarget | None:
    """What the server is to know of a resource; it is asked for where that is not in its name.

    Parameters:
        resource: its name; empty: nothing in particular.

    Raises:
        ValueError: it is none that permissions are about.
        GridlaneError: it cannot be read: NotFound, …
    """
    from gridlane.authorization.v1.permission_pb2 import PermissionTarget
    from gridlane.type.v1.principal_pb2 import Principal

    if not resource:
        return None
    if resource[:4].upper() == "LFN:":
        return _file(client, f"LFN:{resource[4:]}")
    collection, _, rest = resource.partition("/")
    match collection:
        case "jobs" | "tasks" if rest:
            job = client.jobs.get(resource)
            return PermissionTarget(vo=job.vo, owner=job.owner)
        case "transfers" if rest:
            transfer = client.transfers.get(resource)
            return PermissionTarget(vo=transfer.vo, owner=transfer.owner)
        case "channels" if rest:
            return PermissionTarget(channel_uid=client.channels.get(resource).uid)
        case "roleBindings" if rest:
            binding = client.roles.get(resource)
            owner = Principal(issuer=binding.issuer, subject=binding.subject)
            return PermissionTarget(vo=binding.vo, channel_uid=binding.channel_uid, owner=owner)
        case "vos" if rest:
            return PermissionTarget(vo=rest.partition("/")[0])
    if not rest and ":" not in resource and not is_uuid(resource):
        return PermissionTarget(vo=resource)
    raise ValueError(f"{resource!r} cannot be asked about: expected {_KINDS}")


def _file(client: Client, lfn: str) -> PermissionTarget:
    from gridlane.authorization.v1.permission_pb2 import PermissionTarget
    from gridlane.errors import GridlaneError

    path = lfn.removeprefix("LFN:")
    target = PermissionTarget(vo=path.strip("/").partition("/")[0], path=path)
    (file,) = client.replicas.resolve([lfn])
    if not isinstance(file, GridlaneError) and file.HasField("owner"):
        target.owner.CopyFrom(file.owner)
    return target


def _area(resource: str) -> str:
    if resource[:4].upper() == "LFN:":
        return _OF_COLLECTION["LFN:"]
    return _OF_COLLECTION.get(resource.partition("/")[0], "")


def _services() -> Iterator[ServiceDescriptor]:
    for service in _SERVICES:
        package = importlib.import_module(f"gridlane.{service}.v1")
        for module in pkgutil.iter_modules(package.__path__):
            if module.name.endswith("_service_pb2"):
                found = importlib.import_module(f"{package.__name__}.{module.name}")
                yield from found.DESCRIPTOR.services_by_name.values()
