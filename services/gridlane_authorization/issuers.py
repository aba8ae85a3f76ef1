"""Issuers of tokens: the rules of `IssuerService`.

Administrators alone change them, which the decision has said before; everybody sees them. How an
issuer is believed once the policy has it is the kit's (`policy_issuers`, in every process); those
that no call changes are `given_issuers`'.
"""

import json
from collections.abc import Collection, Iterator
from dataclasses import replace
from functools import partial
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails
from sqlalchemy import Connection

from gridlane.authorization.v1 import issuer_pb2, issuer_service_pb2
from gridlane_authorization import messages
from gridlane_authorization.changes import Attempt, Changed, Changes
from gridlane_authorization.given_issuers import SETTINGS_PREFIX, GivenIssuers
from gridlane_authorization.store import bindings, issuers, vos
from gridlane_authorization.store.issuers import PREFIX, StoredIssuer
from gridlane_authorization.store.tables import ISSUER
from gridlane_kit import errors
from gridlane_kit.addresses import Addresses
from gridlane_kit.call import Call
from gridlane_kit.clock import given_us, to_timestamp
from gridlane_kit.database import Database
from gridlane_kit.filters import Field, FilterRules
from gridlane_kit.issuer_keys import KeyStatus
from gridlane_kit.issuers import TrustedIssuers
from gridlane_kit.pages import Keyset, next_page_token, page_request
from gridlane_kit.policy import PolicyChange

FILTER: Final = FilterRules({"vo": Field(str)}, combinations=[["vo"]])
BY_NAME: Final = Keyset(ISSUER.c.id)
# What can be changed, by its name in the contract: its name in the store.
_UPDATABLE: Final = {
    "audiences": "audiences",
    "jwks_uri": "jwks_uri",
    "jwks": "jwks",
    "algorithms": "algorithms",
    "enabled": "enabled",
    "max_group_age": "max_group_age_us",
    "max_token_lifetime": "max_token_lifetime_us",
    "description": "description",
}
_DELEGATION: Final = ("client_id", "client_secret")
_SECRETS: Final = ("d", "k")
"""Members of a JSON Web Key that only its owner has (RFC 7518): private, and symmetric."""
_PAGE_BYTES: Final = 2 * 1024 * 1024
"""A page with more has fewer issuers than were asked for: a message may have 4 MiB."""


class Issuers:
    """Adds, changes, deletes and shows issuers.

    Parameters:
        given: those that no call changes.
        believed: those that this process believes, for how their keys are.
        addresses: where keys may be fetched.
    """

    def __init__(
        self,
        db: Database,
        changes: Changes,
        given: GivenIssuers,
        believed: TrustedIssuers,
        addresses: Addresses,
    ) -> None:
        self._db = db
        self._changes = changes
        self._given = given
        self._believed = believed
        self._addresses = addresses

    async def create(
        self, request: issuer_service_pb2.CreateIssuerRequest, call: Call
    ) -> issuer_pb2.Issuer:
        """Adds one.

        Raises:
            GridlaneError: INVALID_FIELDS, CAPABILITY_MISSING, ADDRESS_FORBIDDEN, ALREADY_EXISTS,
                PRECONDITION, and those of `Changes.create`.
        """
        given = request.issuer
        _refuse_what_is_not_kept(given, _DELEGATION)
        attempt = Attempt.of(call, request, PREFIX + request.issuer_id)
        now = attempt.time_us
        wanted = StoredIssuer(
            request.issuer_id, given.url, given.vo, now, now, 0, **_read(given, _UPDATABLE)
        )
        _check(wanted)
        if self._given.get(wanted.name) is None and wanted.name.startswith(SETTINGS_PREFIX):
            raise errors.invalid([("issuer_id", "settings-… are names of those of the settings")])
        await self._refuse_address(wanted)
        made = await self._changes.create(
            attempt, partial(_create, wanted, self._given), partial(_created, self._given)
        )
        return self._shown(made)

    async def update(
        self, request: issuer_service_pb2.UpdateIssuerRequest, call: Call
    ) -> issuer_pb2.Issuer:
        """Changes one.

        Raises:
            GridlaneError: INVALID_FIELDS, CAPABILITY_MISSING, ADDRESS_FORBIDDEN, NOT_FOUND,
                PRECONDITION, REVISION_CONFLICT, LAST_ADMIN, and those of `Changes.change`.
        """
        given, mask = request.issuer, request.update_mask.paths
        _refuse_what_is_not_kept(given, messages.changed_fields(given, mask, _DELEGATION))
        fields = messages.changed_fields(given, mask, _UPDATABLE)
        terms = _read(given, fields)
        attempt = Attempt.of(call, request, given.name)
        before = await self._db.read(lambda conn: issuers.read(conn, _id(given.name)))
        if before is not None:
            # What is refused for its form needs no lock, and hosts are not looked up under one.
            wanted = replace(before, **terms)
            _check(wanted)
            await self._refuse_address(wanted)
        changed = await self._changes.change(attempt, partial(_update, attempt, terms, self._given))
        return self._shown(changed)

    async def delete(
        self, request: issuer_service_pb2.DeleteIssuerRequest, call: Call
    ) -> issuer_service_pb2.DeleteIssuerResponse:
        """Takes one off the list.

        Raises:
            GridlaneError: NOT_FOUND, PRECONDITION, REVISION_CONFLICT, LAST_ADMIN, and those of
                `Changes.delete`.
        """
        attempt = Attempt.of(call, request, request.name)
        revision = await self._changes.delete(attempt, partial(_delete, attempt, self._given))
        return issuer_service_pb2.DeleteIssuerResponse(policy_revision=revision)

    async def get(
        self, request: issuer_service_pb2.GetIssuerRequest, call: Call
    ) -> issuer_pb2.Issuer:
        """Shows one.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        found = self._given.get(request.name)
        if found is None:
            stored = await self._db.read(lambda conn: issuers.read(conn, _id(request.name)))
            if stored is None:
                raise errors.not_found(request.name)
            found = messages.issuer(stored)
        return self._shown(found)

    async def list(
        self, request: issuer_service_pb2.ListIssuersRequest, call: Call
    ) -> issuer_service_pb2.ListIssuersResponse:
        """Lists them by name.

        Raises:
            GridlaneError: FILTER_UNSUPPORTED, TOKEN_NOT_OURS.
        """
        asked = FILTER.parse(request.filter)
        page = page_request(
            BY_NAME,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=(call.method, asked.canonical),
        )
        vo = asked.value("vo")
        given = [_id(name) for name, its in self._given.vos.items() if vo is None or its == vo]

        def read(conn: Connection) -> tuple[list[str], list[issuer_pb2.Issuer]]:
            # Where a database puts points and hyphens among letters is its own affair.
            left = sorted({*given, *issuers.ids(conn, asked)})
            if page.after is not None:
                left = [id_ for id_ in left if id_ > str(page.after[0])]
            stored = issuers.named(conn, left[: page.size])
            return left, [
                messages.issuer(stored[id_]) if id_ in stored else self._one_given(id_)
                for id_ in left[: page.size]
            ]

        left, found = await self._db.read(read)
        shown = list(_up_to(map(self._shown, found), _PAGE_BYTES))
        answer = issuer_service_pb2.ListIssuersResponse(issuers=shown)
        if len(shown) < len(left):
            answer.next_page_token = next_page_token([left[len(shown) - 1]], page)
        return answer

    def _one_given(self, id_: str) -> issuer_pb2.Issuer:
        found = self._given.get(PREFIX + id_)
        if found is None:
            raise RuntimeError(f"the issuer {id_} is nowhere")
        return found

    def _shown(self, message: issuer_pb2.Issuer) -> issuer_pb2.Issuer:
        """An issuer as callers see it: with how its keys are, in this process."""
        status = self._believed.status(message.url) if message.enabled else None
        if status is not None and not message.HasField("keys"):
            message.keys.CopyFrom(_keys(status))
        return message

    async def _refuse_address(self, issuer: StoredIssuer) -> None:
        if issuer.jwks:
            return
        field, url = ("jwks_uri", issuer.jwks_uri) if issuer.jwks_uri else ("url", issuer.url)
        if await self._addresses.forbid(url):
            raise errors.address_forbidden(f"issuer.{field}", url)


def _create(
    wanted: StoredIssuer, given: GivenIssuers, conn: Connection, revision: int
) -> Changed[issuer_pb2.Issuer]:
    if given.get(wanted.name) is not None or issuers.read(conn, wanted.id) is not None:
        raise errors.already_exists(wanted.name)
    same = issuers.with_url(conn, wanted.url)
    holder = given.urls.get(wanted.url) or (same.name if same is not None else "")
    if holder:
        raise errors.already_exists(holder)
    if vos.read(conn, wanted.vo) is None:
        raise errors.precondition(
            f"vos/{wanted.vo}", f"there is no VO {wanted.vo}: create it before its issuer"
        )
    stored = replace(wanted, revision=revision)
    issuers.insert_one(conn, stored)
    return Changed(stored.name, stored.vo, None, messages.issuer(stored), _told(stored, revision))


def _created(given: GivenIssuers, conn: Connection, name: str) -> issuer_pb2.Issuer:
    """What an earlier call with the same request id made, as it is now."""
    return messages.issuer(_found(conn, given, name))


def _update(
    attempt: Attempt,
    terms: dict[str, Any],
    given: GivenIssuers,
    conn: Connection,
    revision: int,
) -> Changed[issuer_pb2.Issuer]:
    stored = _to_change(conn, attempt, given)
    wanted = replace(stored, **terms)
    before = messages.issuer(stored)
    if wanted == stored:
        return Changed(stored.name, stored.vo, before, before, change=None)
    # It may have changed since it was looked at without the lock.
    _check(wanted)
    if stored.enabled and not wanted.enabled:
        _require_admin_without(conn, stored, given, attempt.time_us)
    changed = replace(wanted, revision=revision, update_time_us=attempt.time_us)
    issuers.change_one(conn, changed)
    return Changed(
        stored.name, stored.vo, before, messages.issuer(changed), _told(changed, revision)
    )


def _delete(
    attempt: Attempt, given: GivenIssuers, conn: Connection, revision: int
) -> Changed[issuer_pb2.Issuer]:
    stored = _to_change(conn, attempt, given)
    if stored.enabled:
        _require_admin_without(conn, stored, given, attempt.time_us)
    issuers.remove(conn, stored.id)
    change = PolicyChange(revision, removed_issuers=frozenset({stored.name}))
    return Changed(stored.name, stored.vo, messages.issuer(stored), None, change)


def _told(stored: StoredIssuer, revision: int) -> PolicyChange:
    """What followers are told: those that are switched off are none of theirs."""
    if stored.enabled:
        return PolicyChange(revision, set_issuers=[stored.terms])
    return PolicyChange(revision, removed_issuers=frozenset({stored.name}))


def _to_change(conn: Connection, attempt: Attempt, given: GivenIssuers) -> StoredIssuer:
    """Returns the issuer that an attempt names.

    Raises:
        GridlaneError: NOT_FOUND, PRECONDITION, REVISION_CONFLICT.
    """
    found = _found(conn, given, attempt.resource)
    attempt.require_revision(found.revision)
    return found


def _found(conn: Connection, given: GivenIssuers, name: str) -> StoredIssuer:
    if given.get(name) is not None:
        raise errors.precondition(
            name, f"{name} is Gridlane's own, or comes from the settings: it is changed there"
        )
    found = issuers.read(conn, _id(name))
    if found is None:
        raise errors.not_found(name)
    return found


def _require_admin_without(
    conn: Connection, issuer: StoredIssuer, given: GivenIssuers, now: int
) -> None:
    """Refuses to believe an issuer no more whose users are the last administrators."""
    its = bindings.standing_admin(conn, now, issuers=[issuer.url])
    if its is None:
        return
    left = given.believed(conn) - {issuer.url}
    if bindings.standing_admin(conn, now, issuers=left) is None:
        raise errors.last_admin(its.name)


def _read(given: issuer_pb2.Issuer, fields: Collection[str]) -> dict[str, Any]:
    """Reads fields of the contract's form, by their names in the store.

    Raises:
        GridlaneError: INVALID_FIELDS.
    """
    messages.refuse_nul(
        issuer__description=given.description,
        issuer__jwks=given.jwks,
        issuer__jwks_uri=given.jwks_uri,
        issuer__audiences="".join(given.audiences),
    )
    read: dict[str, Any] = {
        "audiences": tuple(given.audiences),
        "algorithms": tuple(sorted(given.algorithms)),
        "jwks_uri": given.jwks_uri,
        "jwks": given.jwks,
        "enabled": given.enabled,
        "max_group_age_us": given_us(given, "max_group_age"),
        "max_token_lifetime_us": given_us(given, "max_token_lifetime"),
        "description": given.description,
    }
    return {_UPDATABLE[field]: read[_UPDATABLE[field]] for field in fields}


def _refuse_what_is_not_kept(given: issuer_pb2.Issuer, fields: Collection[str]) -> None:
    """Refuses what tokens would be delegated with, which this version does not do."""
    asked = [f"issuer.{field}" for field in fields if getattr(given, field)]
    if asked:
        cure = "leave it out: this version takes no delegated tokens"
        raise errors.capability_missing([(field, cure) for field in asked], "DELEGATED_TOKENS")


def _check(wanted: StoredIssuer) -> None:
    """Refuses what nobody can believe.

    Raises:
        GridlaneError: INVALID_FIELDS.
    """
    try:
        terms = wanted.terms
    except ValidationError as error:
        raise errors.invalid(
            [
                (f"issuer.{_field(problem)}", problem["msg"])
                for problem in error.errors(include_url=False, include_input=False)
            ]
        ) from None
    if any(map(_is_secret, _keys_in(terms.jwks))):
        raise errors.invalid(
            [("issuer.jwks", "public keys alone: whoever sees these can sign with them")]
        )


def _field(problem: ErrorDetails) -> str:
    """The contract's name of the field that is wrong; what is wrong with several is the keys."""
    return str(problem["loc"][0]).removesuffix("_s") if problem["loc"] else "jwks"


def _keys_in(jwks: str) -> list[Any]:
    return list(json.loads(jwks)["keys"]) if jwks else []


def _is_secret(key: object) -> bool:
    return isinstance(key, dict) and any(member in key for member in _SECRETS)


def _keys(status: KeyStatus) -> issuer_pb2.IssuerKeys:
    keys = issuer_pb2.IssuerKeys(key_ids=status.kids, message=status.problem)
    if status.fetched_us is not None:
        keys.fetch_time.CopyFrom(to_timestamp(status.fetched_us))
    return keys


def _up_to(found: Iterator[issuer_pb2.Issuer], limit: int) -> Iterator[issuer_pb2.Issuer]:
    """Yields the first, and more of them as long as they have so many bytes together."""
    size = 0
    for issuer in found:
        size += issuer.ByteSize()
        if size > limit and size > issuer.ByteSize():
            return
        yield issuer


def _id(name: str) -> str:
    return name.removeprefix(PREFIX)
