"""What a storage element that administrators make must be.

Responsible for the rules that need more than one field: what the backends can do, addresses that
policy closes, contradictions, what may be changed by which mask. The rules of single fields stand
in the contract; what the store must say is `storage_admin`'s.
"""

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from google.protobuf.message import Message

from gridlane.transfer.v1 import storage_element_pb2
from gridlane_kit import errors
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_transfer.backends.base import TransferBackend
from gridlane_transfer.backends.embedded.webdav.addresses import AddressPolicy, resolve
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.element_urls import FILE, Place, not_plain, place_of, scheme_of
from gridlane_transfer.storage.storage_elements import (
    OWN_NAMES,
    PREFIX,
    AccessState,
    StorageElements,
)

Settings = storage_element_pb2.StorageElement
UPDATABLE: Final[Mapping[str, bool]] = {
    "endpoints": False,
    "vo_paths": False,
    "medium": False,
    "spacetoken": False,
    "failover_for": False,
    "access": True,
    "limits": True,
    "draining": False,
    "site": False,
    "description": False,
    "checksum_types": False,
    "transfer_defaults": True,
}
"""The fields that can be changed, and whether also by part."""

_FIELD: Final = "storage_element"
_NEEDS: Final[Mapping[str, str]] = {
    "spacetoken": "SPACE_TOKENS",
    "limits.max_active_staging": "STAGING",
    "transfer_defaults.archive_timeout": "ARCHIVING",
    "transfer_defaults.strict_copy": "STRICT_COPY",
    "transfer_defaults.s3_alternate": "S3_ALTERNATE",
    "transfer_defaults.ip_version": "IP_VERSION",
}
"""What nothing here does for a storage element, and the capability that it takes."""
_OPERATION_NEEDS: Final[Mapping[Operation, str]] = {
    Operation.THIRD_PARTY_READ: "THIRD_PARTY_COPY",
    Operation.THIRD_PARTY_WRITE: "THIRD_PARTY_COPY",
    Operation.STAGE: "STAGING",
}
_RESOLVE_S: Final = 5.0
_controls: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]").search
_paragraph_controls: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]").search
_hidden_slash: Final = re.compile(r"\\|%(2f|5c)", re.IGNORECASE).search

_NOT_BELOW: Final = (
    "it lies below no directory that is configured for that, or is reached by a symbolic link"
)

Violations = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class ElementRules:
    """The rules, with what they depend on.

    Parameters:
        backend: moves to and from the elements.
        addresses: which addresses may be spoken to.
        file_roots: the directories below which `file:` endpoints may lie.
    """

    elements: StorageElements
    backend: TransferBackend
    addresses: AddressPolicy
    file_roots: Sequence[str]

    async def require(self, name: str, given: Settings, changed: Sequence[str]) -> None:
        """Refuses settings that cannot be.

        Parameters:
            name: the element's plain name.
            given: as they would be stored.
            changed: the fields that were not so before.

        Raises:
            GridlaneError: INVALID_FIELDS that names each violation, CAPABILITY_MISSING,
                ADDRESS_FORBIDDEN.
        """
        violations = [*self._violations(given)]
        if "failover_for" in changed:
            violations += self._failover_violations(name, given.failover_for)
        if violations:
            raise errors.invalid(violations)
        self._require_capabilities(given)
        if "endpoints" in changed:
            for endpoint in given.endpoints:
                await self._require_address(endpoint.base_url)

    def _violations(self, given: Settings) -> Iterator[tuple[str, str]]:
        if not given.endpoints:
            yield f"{_FIELD}.endpoints", "at least one endpoint is required"
        for index, endpoint in enumerate(given.endpoints):
            why = _wrong_url(endpoint.base_url, self.backend.protocols)
            if why:
                yield f"{_FIELD}.endpoints[{index}].base_url", why
        yield from _vo_path_violations(given.vo_paths)
        for operation in ("read", "write", "check", "remove"):
            if getattr(given.access, operation) == AccessState.BANNED:
                yield f"{_FIELD}.access.{operation}", "ban it with BanStorage instead"
        if _controls(given.site):
            yield f"{_FIELD}.site", "no control characters"
        if _paragraph_controls(given.description):
            yield f"{_FIELD}.description", "no control characters but line ends and tabs"

    def _failover_violations(
        self, name: str, failover_for: Sequence[str]
    ) -> Iterator[tuple[str, str]]:
        for index, other in enumerate(failover_for):
            if other == PREFIX + name:
                yield f"{_FIELD}.failover_for[{index}]", "it cannot stand in for itself"
            elif self.elements.get(other) is None:
                yield f"{_FIELD}.failover_for[{index}]", f"there is no {other}"

    def _require_capabilities(self, given: Settings) -> None:
        found: list[tuple[str, str, str]] = []
        for index, endpoint in enumerate(given.endpoints):
            field = f"{_FIELD}.endpoints[{index}]"
            scheme = scheme_of(endpoint.base_url)
            if scheme not in self.backend.protocols:
                known = ", ".join(sorted(self.backend.protocols))
                found.append((f"{field}.base_url", scheme.upper(), f"name one of {known}"))
            for number in endpoint.operations:
                needed = _OPERATION_NEEDS.get(Operation(number), "")
                if needed and needed not in self.backend.capabilities:
                    found.append((f"{field}.operations", needed, "leave it out"))
        if given.medium == storage_element_pb2.STORAGE_MEDIUM_TAPE:
            found.append((f"{_FIELD}.medium", "STAGING", "only disk is served"))
        for path, needed in _NEEDS.items():
            if needed not in self.backend.capabilities and _is_asked(given, path):
                found.append((f"{_FIELD}.{path}", needed, "leave it unset"))
        if found:
            name = self.backend.name
            violations = [
                (field, f"needs {needed}, which {name} lacks: {cure}")
                for field, needed, cure in found
            ]
            raise errors.capability_missing(violations, found[0][1], name)

    async def _require_address(self, base_url: str) -> None:
        if scheme_of(base_url) == FILE:
            if not await asyncio.to_thread(_lies_below, base_url, self.file_roots):
                raise _forbidden(base_url, _NOT_BELOW)
            return
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        try:
            async with asyncio.timeout(_RESOLVE_S):
                found = await asyncio.to_thread(resolve, host, parts.port or 0)
        except (OSError, UnicodeError, TimeoutError):
            return  # nobody knows it yet; the address is judged again at each connection
        for one in found:
            why = self.addresses.refusal(one.address)
            if why:
                raise _forbidden(base_url, why)


def places_of(given: Settings) -> list[Place]:
    """The places of an element's endpoints."""
    found = (place_of(endpoint.base_url) for endpoint in given.endpoints)
    return [place for place in found if place is not None]


def merged(stored: Settings, given: Settings, paths: Sequence[str]) -> tuple[Settings, list[str]]:
    """Settings with the given values of some fields (AIP-134), and the fields that differ.

    Parameters:
        stored: as they are.
        given: the resource in the request.
        paths: of its mask; empty: every field that is set.

    Raises:
        GridlaneError: INVALID_FIELDS for a path that cannot be changed.
    """
    chosen = list(paths) or [
        field.name for field, _ in given.ListFields() if field.name in UPDATABLE
    ]
    wrong = [path for path in chosen if not _is_updatable(path)]
    if wrong:
        known = ", ".join(UPDATABLE)
        raise errors.invalid([("update_mask", f"{path}: name some of {known}") for path in wrong])
    result = Settings()
    result.CopyFrom(stored)
    for path in chosen:
        _take(result, given, path)
    heads = {path.partition(".")[0] for path in chosen}
    changed = [head for head in UPDATABLE if head in heads and _differs(stored, result, head)]
    return result, changed


def settable(given: Settings) -> Settings:
    """What of a resource is stored: without its name and what is output only."""
    result, _ = merged(Settings(), given, [])
    for endpoint in result.endpoints:
        endpoint.ClearField("protocol")
    return result


def _is_updatable(path: str) -> bool:
    head, dot, tail = path.partition(".")
    if head not in UPDATABLE:
        return False
    if not dot:
        return True
    part = Settings.DESCRIPTOR.fields_by_name[head].message_type
    return UPDATABLE[head] and part is not None and tail in part.fields_by_name


def _take(target: Message, given: Message, path: str) -> None:
    """Copies one field, or a part of one; what is not set in `given` goes back to its default."""
    head, _, tail = path.partition(".")
    if tail:
        _take(getattr(target, head), getattr(given, head), tail)
        if not getattr(target, head).ListFields():
            target.ClearField(head)
        return
    alone = type(given)()
    alone.CopyFrom(given)
    for field, _ in given.ListFields():
        if field.name != head:
            alone.ClearField(field.name)
    target.ClearField(head)
    target.MergeFrom(alone)


def _differs(before: Settings, after: Settings, field: str) -> bool:
    return bool(getattr(before, field) != getattr(after, field))


def _is_asked(given: Settings, path: str) -> bool:
    """Whether a field, or a part of one, has a value that asks for something."""
    value: object = given
    for name in path.split("."):
        if isinstance(value, Message) and _is_unset(value, name):
            return False
        value = getattr(value, name)
    return isinstance(value, Message) or bool(value)


def _is_unset(message: Message, name: str) -> bool:
    return message.DESCRIPTOR.fields_by_name[name].has_presence and not message.HasField(name)


def _wrong_url(base_url: str, protocols: frozenset[str]) -> str:
    """What is wrong with a base URL of a scheme that is served; empty when nothing is."""
    scheme = scheme_of(base_url)
    if scheme not in protocols:
        return ""  # refused for that
    place = place_of(base_url)
    if place is None:
        return "like https://host[:port]/path or file:///directory, without user, query or fragment"
    if not_plain(place.path[1:]) and place.path:
        return "a path without empty parts, `.`, `..` and control characters"
    if _hidden_slash(base_url):
        return "no backslash, and no slash or backslash that is percent-encoded"
    return ""


def _vo_path_violations(vo_paths: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    ordered = sorted(vo_paths.items(), key=lambda pair: (f"{pair[1]}/", pair[0]))
    for vo, path in ordered:
        field = f"{_FIELD}.vo_paths[{vo}]"
        if _controls(vo):
            yield f"{_FIELD}.vo_paths", "no control characters in the name of a VO"
        if not path.startswith("/") or not_plain(path[1:]):
            yield field, "like /vo, without empty parts, `.` and `..`"
        if f"/{OWN_NAMES}" in path:
            yield field, f"names that begin with {OWN_NAMES} are Gridlane's own"
    for (vo, path), (other, longer) in pairwise(ordered):
        if f"{longer}/".startswith(f"{path}/"):
            yield f"{_FIELD}.vo_paths[{other}]", f"lies in the path of the VO {vo}"


def _lies_below(base_url: str, roots: Sequence[str]) -> bool:
    """Whether a directory lies below one of some others, no symbolic link on the way from there:
    one would lead out, or be another name for a place that has one. The roots are the operator's,
    and may be reached through links.
    """
    directory = Path(unquote(base_url.removeprefix(f"{FILE}://")))
    try:
        return any(
            directory.resolve() == root.resolve() / directory.relative_to(root)
            for given in roots
            for root in {Path(given), Path(given).resolve()}
            if directory != root and directory.is_relative_to(root)
        )
    except (OSError, RuntimeError):
        return False


def _forbidden(url: str, why: str) -> GridlaneError:
    return GridlaneError(
        ErrorReason.ADDRESS_FORBIDDEN,
        f"{url} may not be reached: {why}; have it allowed where the service is configured",
        {"url": url},
    )
