"""Assertions: how one service proves to another on whose behalf it calls.

Responsible for signing and for verifying them: short JWTs (ES256) in which a service, with a key of
its own, names the whole principal for whom it acts. They are accepted along `peers.EDGES` alone, so
that no service can do more through another one than the design lets it. Not for users' tokens
(`tokens`), nor for sending (`wire_peers`). What is wrong with an assertion is logged, never told.

Claims: `iss` urn:gridlane:service:<sender>, `aud` the same of the receiver, `act` the sender, `sub`
the principal's subject; the rest of the principal as in Gridlane's own tokens, with
`gridlane.issuer` for its issuer. The header's `typ` keeps them apart from every other JWT
(RFC 8725, 3.11), its `kid` is the sender's name.
"""

import json
import logging
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, TypeVar

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from gridlane_kit import errors
from gridlane_kit.claims import (
    MAX_TOKEN_BYTES,
    BadTokenError,
    UnprovenJwt,
    describe,
    instant,
    read_jwt,
    text,
    texts,
)
from gridlane_kit.identity import SERVICE_ISSUER, Principal, PrincipalKind, Proof
from gridlane_kit.jwks import is_signed_with
from gridlane_kit.peers import EDGES, SPAN_KEEPER
from gridlane_kit.sessions import Verifier
from gridlane_kit.tokens import load_key

LIFETIME_S: Final = 60
"""Longest time between `iat` and `exp`."""
REUSE_S: Final = 30
"""For how long one is sent again: what is left then covers the way and a receiver's fast clock."""
CLOCK_LEEWAY_S: Final = 10
"""How far the sender's clock may run ahead of ours."""
MAX_ASSERTION_BYTES: Final = MAX_TOKEN_BYTES + 1024
"""What a user's token may say, and what is said of the services."""

_TYPE: Final = "gridlane-assertion+jwt"
_URN: Final = f"{SERVICE_ISSUER}:"
_log = logging.getLogger(__name__)
ClaimT = TypeVar("ClaimT", str, int)
_Index = tuple[str, Principal, int | None, int | None]


class ServiceKeysError(ValueError):
    """A file of services' keys is not usable; the message names it, and what was expected."""


class AssertionSigner:
    """Signs the assertions of one service.

    Parameters:
        service: who asserts: "workload".
        key: its private key; the public half stands in the receivers' file of service keys.
        size: how many assertions are kept for being sent again.
    """

    def __init__(self, service: str, key: ECKey, *, size: int = 4096) -> None:
        self.service = service
        self._key = key
        self._size = size
        # In the order in which they were signed, so that the first is the oldest.
        self._kept: dict[_Index, tuple[str, float]] = {}

    @classmethod
    def from_file(cls, service: str, path: Path) -> "AssertionSigner":
        """Reads the private key (PEM).

        Raises:
            ServiceKeysError: it cannot be read, or is no such key.
        """
        try:
            return cls(service, load_key(path.read_bytes()))
        except (OSError, ValueError, JoseError) as error:
            raise ServiceKeysError(f"{path}: the key of {service} is not usable: {error}") from None

    def header(self, principal: Principal, receiver: str) -> str:
        """Returns the `authorization` header of a call to `receiver` for `principal`.

        Raises:
            ValueError: the principal is another service: nobody acts for one but itself.
        """
        index = _index(principal, receiver)
        now = time.time()
        kept = self._kept.get(index)
        if kept is not None and 0 <= now - kept[1] < REUSE_S:
            return kept[0]
        self._kept.pop(index, None)
        while len(self._kept) >= self._size:
            del self._kept[next(iter(self._kept))]
        header = f"Bearer {self._sign(principal, receiver, int(now))}"
        self._kept[index] = (header, now)
        return header

    def forget(self, principal: Principal, receiver: str) -> None:
        """Has the next call signed anew: the receiver did not take the last assertion."""
        self._kept.pop(_index(principal, receiver), None)

    def _sign(self, principal: Principal, receiver: str, now_s: int) -> str:
        claims = {
            **_described(principal),
            "iss": _URN + self.service,
            "aud": _URN + receiver,
            "act": self.service,
            "iat": now_s,
            "exp": now_s + LIFETIME_S,
        }
        if principal.kind is PrincipalKind.SERVICE and principal.subject != self.service:
            raise ValueError(f"{self.service} cannot act for the service {principal.subject}")
        header = {"typ": _TYPE, "alg": "ES256", "kid": self.service}
        return jwt.encode(header, claims, self._key, algorithms=["ES256"])


class AssertionVerifier:
    """Proves the assertions that a service receives.

    Parameters:
        service: the receiver: "transfer".
        jwks: the public keys of all services; each `kid` is a service's name. A service that
            changes its key has two for a while.

    Raises:
        ServiceKeysError: the keys are not usable.
    """

    def __init__(self, service: str, jwks: Mapping[str, Any]) -> None:
        self._service = service
        self._keys = _public_keys(jwks)

    @classmethod
    def from_file(cls, service: str, path: Path) -> "AssertionVerifier":
        """Reads the public keys of all services (a JWKS).

        Raises:
            ServiceKeysError: it cannot be read, or holds something else.
        """
        try:
            jwks = json.loads(path.read_bytes())
            return cls(service, jwks if isinstance(jwks, dict) else {})
        except (OSError, ValueError) as error:
            raise ServiceKeysError(f"{path}: {error}") from None

    async def prove(self, token: str) -> Proof:
        """Returns the principal for which a service calls; `actor` is that service, or None when it
        acts for itself.

        Raises:
            GridlaneError: TOKEN_INVALID, TOKEN_EXPIRED.
        """
        try:
            claims = self._claims(token)
            expires_s = _times_checked(claims, time.time())
            principal = _principal(claims)
            if principal.actor is not None and self._service not in EDGES[principal.actor]:
                raise BadTokenError("the sender calls this service for nobody but itself")
        except (BadTokenError, ValueError) as error:
            _log.warning("assertion refused: %s", describe(error))
            raise errors.token_invalid() from None
        if time.time() >= expires_s:
            raise errors.token_expired()
        return Proof(principal, expires_s)

    def _claims(self, token: str) -> Mapping[str, Any]:
        """Returns the claims, once the sender, its right to call here and its signature are
        proven."""
        assertion = read_jwt(token, MAX_ASSERTION_BYTES)
        claims, issuer = assertion.claims, assertion.issuer
        sender = issuer.removeprefix(_URN)
        if issuer == sender or not _may_reach(sender, self._service):
            raise BadTokenError("the sender does not call this service")
        self._check_signed_by(sender, assertion)
        if claims.get("act") != sender:
            raise BadTokenError("act is another one than iss")
        if claims.get("aud") != _URN + self._service:
            raise BadTokenError("aud is another service")
        return claims

    def _check_signed_by(self, sender: str, assertion: UnprovenJwt) -> None:
        header = assertion.header
        if (header.get("alg"), header.get("kid"), header.get("typ")) != ("ES256", sender, _TYPE):
            raise BadTokenError("alg, kid or typ is another one")
        if "crit" in header:
            raise BadTokenError("nothing critical is understood")
        keys = self._keys.get(sender, ())
        if not any(is_signed_with(assertion, "ES256", key) for key in keys):
            raise BadTokenError("not signed with a key of the sender")


class BearerVerifier:
    """Proves both kinds of bearer on one port: users' tokens and services' assertions.

    Which it is follows from the issuer's name, which no issuer of users' tokens may have; either
    verifier then proves the whole of it.
    """

    def __init__(self, tokens: Verifier, assertions: Verifier) -> None:
        self._tokens = tokens
        self._assertions = assertions

    async def prove(self, token: str) -> Proof:
        """Returns the principal.

        Raises:
            GridlaneError: what the verifier for this kind raises.
        """
        verifier = self._assertions if _claims_a_service(token) else self._tokens
        return await verifier.prove(token)


def service_jwks(keys: Mapping[str, ECKey]) -> dict[str, Any]:
    """Returns the file of service keys: the public half of each service's key, under its name."""
    return {"keys": [_public(service, key) for service, key in sorted(keys.items())]}


def _may_reach(sender: str, receiver: str) -> bool:
    """Whether a service calls another; all tell the one that keeps spans of their own."""
    tells_spans = receiver == SPAN_KEEPER and sender in EDGES and sender != receiver
    return tells_spans or receiver in EDGES.get(sender, ())


def _public(service: str, key: ECKey) -> dict[str, Any]:
    return {**key.as_dict(private=False), "use": "sig", "alg": "ES256", "kid": service}


def _public_keys(jwks: Mapping[str, Any]) -> dict[str, list[ECKey]]:
    found: dict[str, list[ECKey]] = {}
    entries: object = jwks.get("keys")
    if not isinstance(entries, list):
        raise ServiceKeysError("no JWKS: expected an object with a list 'keys'")
    for entry in entries:
        service = entry.get("kid") if isinstance(entry, Mapping) else None
        if not isinstance(service, str) or service not in EDGES:
            raise ServiceKeysError(f"kid {service!r} is no service: {', '.join(EDGES)}")
        found.setdefault(service, []).append(_public_key(service, entry))
    return found


def _public_key(service: str, entry: Mapping[str, Any]) -> ECKey:
    try:
        key = ECKey.import_key(dict(entry))
    except (JoseError, ValueError, KeyError, TypeError):
        raise ServiceKeysError(f"the key of {service} is no EC key") from None
    if key.is_private or key.curve_name != "P-256":
        raise ServiceKeysError(f"the key of {service} is not the public half of a P-256 key")
    return key


def _claims_a_service(token: str) -> bool:
    try:
        return read_jwt(token, MAX_ASSERTION_BYTES).issuer.startswith(SERVICE_ISSUER)
    except BadTokenError:
        return False  # no JWT at all: the verifier of tokens says so


def _times_checked(claims: Mapping[str, Any], now_s: float) -> float:
    issued_s, expires_s = instant(claims, "iat"), instant(claims, "exp")
    if not 0 < expires_s - issued_s <= LIFETIME_S:
        raise BadTokenError(f"good for more than {LIFETIME_S} s")
    if issued_s > now_s + CLOCK_LEEWAY_S:
        raise BadTokenError("iat lies in the future")
    return expires_s


def _index(principal: Principal, receiver: str) -> _Index:
    """What an assertion is kept under: all that it says, and to whom."""
    return (receiver, principal, principal.token_expires_us, principal.groups_until_us)


def _described(principal: Principal) -> dict[str, Any]:
    optional = {
        "name": principal.display_name or None,
        "scope": None if principal.scopes is None else " ".join(sorted(principal.scopes)),
        "gridlane.active_group": principal.active_group or None,
        "gridlane.job": principal.job,
        "gridlane.attempt": principal.attempt,
        "gridlane.token_expires_us": principal.token_expires_us,
        "gridlane.groups_until_us": principal.groups_until_us,
    }
    return {
        "sub": principal.subject,
        "gridlane.issuer": principal.issuer,
        "gridlane.kind": principal.kind.value,
        "gridlane.vos": sorted(principal.vos),
        "wlcg.groups": sorted(principal.groups),
        **{name: value for name, value in optional.items() if value is not None},
    }


def _principal(claims: Mapping[str, Any]) -> Principal:
    """Reads what `_described` wrote."""
    kind = PrincipalKind(text(claims, "gridlane.kind"))
    issuer, subject, sender = (text(claims, name) for name in ("gridlane.issuer", "sub", "act"))
    itself = kind is PrincipalKind.SERVICE
    if itself != issuer.startswith(SERVICE_ISSUER):
        raise BadTokenError("a service's issuer for somebody else")
    if itself and (issuer, subject) != (SERVICE_ISSUER, sender):
        raise BadTokenError("a service acts for another one")
    job, attempt = (
        _optional(claims, "gridlane.job", str),
        _optional(claims, "gridlane.attempt", int),
    )
    if (kind is PrincipalKind.JOB) != (job is not None and attempt is not None):
        raise BadTokenError("job and attempt belong to a job's principal")
    scope = _optional(claims, "scope", str)
    return Principal(
        issuer=issuer,
        subject=subject,
        display_name=_optional(claims, "name", str) or "",
        vos=frozenset(texts(claims, "gridlane.vos")),
        groups=frozenset(texts(claims, "wlcg.groups")),
        active_group=_optional(claims, "gridlane.active_group", str) or "",
        scopes=None if scope is None else frozenset(scope.split()),
        kind=kind,
        actor=None if itself else sender,
        job=job,
        attempt=attempt,
        token_expires_us=_optional(claims, "gridlane.token_expires_us", int),
        groups_until_us=_optional(claims, "gridlane.groups_until_us", int),
    )


def _optional(claims: Mapping[str, Any], name: str, form: type[ClaimT]) -> ClaimT | None:
    value = claims.get(name)
    if value is not None and type(value) is not form:
        raise BadTokenError(f"{name} is no {form.__name__}")
    return value
