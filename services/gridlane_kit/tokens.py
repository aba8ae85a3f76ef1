"""Bearer tokens: signing Gridlane's own, and turning a token into a Principal.

Responsible for the form of a token (JWT, ES256; the claims of the WLCG token profile 1.0 and a few
of Gridlane's own) and for everything that is checked before a caller is believed. Not for where
keys lie (Authorization keeps them) nor for what the caller may do (`decision`). What is wrong with
a token is logged, never told: a caller learns TOKEN_INVALID or TOKEN_EXPIRED.

Trusted issuers are Gridlane's Authorizations: their private claims (`gridlane.*`) are believed.
"""

import base64
import json
import logging
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from gridlane_kit import errors
from gridlane_kit.identity import Principal, PrincipalKind

MAX_TOKEN_BYTES: Final = 16 * 1024
MAX_SUBJECT_CHARACTERS: Final = 255
ALGORITHMS: Final = ("ES256", "RS256")
"""Signature algorithms accepted (WLCG profile: RS256 and ES256 and no others are required)."""

WLCG_VERSION: Final = "1.0"
CLOCK_LEEWAY_S: Final = 30
"""How far an issuer's clock may run ahead of ours for `iat` and `nbf`."""

_LATEST_S: Final = 253_402_300_799  # 9999-12-31T23:59:59Z
_log = logging.getLogger(__name__)


class KeySource(Protocol):
    """Where an issuer's public keys come from."""

    async def key_set(self) -> KeySet:
        """Returns the issuer's keys as they are now.

        Raises:
            GridlaneError: PEER_UNAVAILABLE: they cannot be had just now.
        """


class StaticKeys:
    """Keys that do not change while the process lives: a JWKS from configuration or from this
    process."""

    def __init__(self, jwks: Mapping[str, Any]) -> None:
        self._keys = KeySet.import_key_set({"keys": list(jwks["keys"])})

    async def key_set(self) -> KeySet:
        """Returns the keys."""
        return self._keys


def new_key() -> ECKey:
    """Makes a signing key (P-256), with its RFC 7638 thumbprint as key id."""
    return _named(ECKey.generate_key("P-256"))


def dump_key(key: ECKey) -> bytes:
    """Returns the private key as PEM (PKCS#8), to be kept in a file of mode 0600."""
    return key.as_pem(private=True)


def load_key(pem: bytes) -> ECKey:
    """Reads what `dump_key` wrote.

    Raises:
        ValueError: it is not a P-256 private key.
    """
    key = ECKey.import_key(pem)
    if not key.is_private or key.curve_name != "P-256":
        raise ValueError("a signing key is a P-256 private key in PEM")
    return _named(key)


def _named(key: ECKey) -> ECKey:
    public = {"use": "sig", "alg": "ES256", "kid": key.thumbprint()}
    return ECKey.import_key({**key.as_dict(private=True), **public})


class TokenSigner:
    """Signs tokens in the name of one issuer.

    Parameters:
        key: the private key.
        issuer: `iss`, compared exactly by verifiers.
        audience: `aud`, one for the whole deployment.
    """

    def __init__(self, key: ECKey, issuer: str, audience: str) -> None:
        self._key = key
        self.issuer = issuer
        self.audience = audience

    def jwks(self) -> dict[str, Any]:
        """Returns the public half, as a JWKS."""
        return {"keys": [self._key.as_dict(private=False)]}

    def sign_user(
        self,
        subject: str,
        *,
        lifetime_s: int,
        display_name: str = "",
        vos: Collection[str] = (),
        groups: Collection[str] = (),
        scopes: Iterable[str] | None = None,
    ) -> str:
        """Signs a user's token, good for `lifetime_s` seconds from now."""
        claims: dict[str, Any] = {
            "gridlane.kind": PrincipalKind.USER.value,
            "gridlane.vos": sorted(vos),
            "wlcg.groups": sorted(groups),
        }
        if display_name:
            claims["name"] = display_name
        if scopes is not None:
            claims["scope"] = " ".join(sorted(scopes))
        return self._sign(subject, lifetime_s, claims)

    def sign_job(
        self, subject: str, *, job: str, attempt: int, vos: Collection[str] = (), lifetime_s: int
    ) -> str:
        """Signs the token of one attempt of a job ("jobs/{uuid}"); `subject` is the job's owner."""
        claims = {
            "gridlane.kind": PrincipalKind.JOB.value,
            "gridlane.vos": sorted(vos),
            "gridlane.job": job,
            "gridlane.attempt": attempt,
        }
        return self._sign(subject, lifetime_s, claims)

    def _sign(self, subject: str, lifetime_s: int, claims: Mapping[str, Any]) -> str:
        now = int(time.time())
        profile = {
            "wlcg.ver": WLCG_VERSION,
            "iss": self.issuer,
            "sub": subject,
            "aud": self.audience,
            "iat": now,
            "nbf": now,
            "exp": now + lifetime_s,
            "jti": secrets.token_urlsafe(16),
        }
        header = {"alg": "ES256", "kid": self._key.kid}
        return jwt.encode(header, {**claims, **profile}, self._key, algorithms=["ES256"])


class TokenVerifier:
    """Turns bearer tokens into principals. What was proven is remembered by `sessions`.

    Parameters:
        issuers: the issuers believed, each with the source of its keys; compared exactly.
        audience: the deployment's audience, which every token must carry.
    """

    def __init__(self, issuers: Mapping[str, KeySource], audience: str) -> None:
        self._issuers = dict(issuers)
        self._audience = audience

    async def verify(self, token: str) -> Principal:
        """Returns the principal that a token proves.

        Raises:
            GridlaneError: TOKEN_INVALID, TOKEN_EXPIRED; what the issuer's key source raises.
        """
        try:
            claims = await self._claims(token)
            return _principal(claims, self._audience, time.time())
        except (_BadTokenError, JoseError, ValueError, TypeError, RecursionError) as error:
            _log.warning("token refused: %s", _describe(error))
            raise errors.token_invalid() from None

    async def _claims(self, token: str) -> Mapping[str, Any]:
        if len(token) > MAX_TOKEN_BYTES:
            raise _BadTokenError("longer than 16 KiB")
        issuer = _unverified_issuer(token)
        source = self._issuers.get(issuer)
        if source is None:
            raise _BadTokenError("issuer is not trusted")
        keys = await source.key_set()
        return jwt.decode(token, keys, algorithms=list(ALGORITHMS)).claims


class _BadTokenError(Exception):
    """The token breaks a rule; the text names the rule and never a part of the token."""


def _describe(error: Exception) -> str:
    return str(error) if isinstance(error, _BadTokenError) else type(error).__name__


def _unverified_issuer(token: str) -> str:
    segments = token.split(".")
    if len(segments) != 3:
        raise _BadTokenError("not three segments")
    padded = segments[1] + "=" * (-len(segments[1]) % 4)
    claims = json.loads(base64.urlsafe_b64decode(padded))
    if not isinstance(claims, dict):
        raise _BadTokenError("claims are no object")
    return _text(claims, "iss")


def _principal(claims: Mapping[str, Any], audience: str, now_s: float) -> Principal:
    """Checks the claims of a token whose signature is good (WLCG token profile 1.0)."""
    if _text(claims, "wlcg.ver").partition(".")[0] != "1":
        raise _BadTokenError("unknown major version of the WLCG profile")
    subject = _text(claims, "sub")
    if len(subject) > MAX_SUBJECT_CHARACTERS:
        raise _BadTokenError("sub is too long")
    _text(claims, "jti")
    audiences = claims.get("aud")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise _BadTokenError("aud is another one")
    if _instant(claims, "iat") > now_s + CLOCK_LEEWAY_S:
        raise _BadTokenError("iat lies in the future")
    if "nbf" in claims and _instant(claims, "nbf") > now_s + CLOCK_LEEWAY_S:
        raise _BadTokenError("nbf lies in the future")
    expires_s = _instant(claims, "exp")
    job, attempt = _job(claims)
    principal = Principal(
        issuer=_text(claims, "iss"),
        subject=subject,
        display_name=str(claims.get("name", "")),
        vos=_texts(claims, "gridlane.vos"),
        groups=_texts(claims, "wlcg.groups"),
        scopes=frozenset(_text(claims, "scope").split()) if claims.get("scope") else None,
        kind=PrincipalKind.USER if job is None else PrincipalKind.JOB,
        job=job,
        attempt=attempt,
        token_expires_us=int(expires_s * 1_000_000),
    )
    if now_s >= expires_s:
        raise errors.token_expired()
    return principal


def _job(claims: Mapping[str, Any]) -> tuple[str | None, int | None]:
    kind = _text(claims, "gridlane.kind")
    if kind == PrincipalKind.USER:
        return None, None
    attempt = claims.get("gridlane.attempt")
    if kind != PrincipalKind.JOB or not isinstance(attempt, int):
        raise _BadTokenError("neither a user's token nor a job's")
    return _text(claims, "gridlane.job"), attempt


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims.get(name)
    if not isinstance(value, str) or not value:
        raise _BadTokenError(f"{name} is missing or no text")
    return value


def _texts(claims: Mapping[str, Any], name: str) -> frozenset[str]:
    values = claims.get(name, [])
    if not isinstance(values, list) or not all(isinstance(v, str) for v in values):
        raise _BadTokenError(f"{name} is no list of texts")
    return frozenset(values)


def _instant(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _LATEST_S:
        raise _BadTokenError(f"{name} is missing or no time")
    return value
