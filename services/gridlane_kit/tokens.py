"""Bearer tokens: signing Gridlane's own, and turning a token into a Principal.

Responsible for the form of a token (JWT, ES256; the claims of the WLCG token profile 1.0 and a few
of Gridlane's own) and for everything that is checked before a caller is believed. Not for where
keys lie (Authorization keeps them) nor for what the caller may do (`decision`). What is wrong with
a token is logged, never told: a caller learns TOKEN_INVALID or TOKEN_EXPIRED.

Trusted issuers are Gridlane's Authorizations: their private claims (`gridlane.*`) are believed.
"""

import logging
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Protocol

from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet

from gridlane_kit import errors
from gridlane_kit.claims import BadTokenError, describe, instant, text, texts, unverified_issuer
from gridlane_kit.identity import SERVICE_ISSUER, Principal, PrincipalKind, Proof

MAX_SUBJECT_CHARACTERS: Final = 255
ALGORITHMS: Final = ("ES256", "RS256")
"""Signature algorithms accepted (WLCG profile: RS256 and ES256 and no others are required)."""

WLCG_VERSION: Final = "1.0"
CLOCK_LEEWAY_S: Final = 30
"""How far an issuer's clock may run ahead of ours for `iat` and `nbf`."""

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
        self,
        owner_issuer: str,
        subject: str,
        *,
        job: str,
        attempt: int,
        vos: Collection[str] = (),
        lifetime_s: int,
    ) -> str:
        """Signs the token of one attempt of a job ("jobs/{uuid}").

        Parameters:
            owner_issuer, subject: the identity of the job's owner, whoever issued it. `iss` is who
                signs; two owners with one subject are told apart by the claim
                `gridlane.owner_issuer`.
        """
        claims = {
            "gridlane.kind": PrincipalKind.JOB.value,
            "gridlane.owner_issuer": owner_issuer,
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

    Raises:
        ValueError: an issuer has the name of a service, whose word counts in assertions alone.
    """

    def __init__(self, issuers: Mapping[str, KeySource], audience: str) -> None:
        if any(issuer.startswith(SERVICE_ISSUER) for issuer in issuers):
            raise ValueError(f"no issuer of users' tokens is called {SERVICE_ISSUER}…")
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
        except (BadTokenError, JoseError, ValueError, TypeError, RecursionError) as error:
            _log.warning("token refused: %s", describe(error))
            raise errors.token_invalid() from None

    async def prove(self, token: str) -> Proof:
        """Returns the principal that a token proves, and until when; raises as `verify` does."""
        principal = await self.verify(token)
        return Proof(principal, (principal.token_expires_us or 0) / 1e6)

    async def _claims(self, token: str) -> Mapping[str, Any]:
        issuer = unverified_issuer(token)
        source = self._issuers.get(issuer)
        if source is None:
            raise BadTokenError("issuer is not trusted")
        keys = await source.key_set()
        return jwt.decode(token, keys, algorithms=list(ALGORITHMS)).claims


def _principal(claims: Mapping[str, Any], audience: str, now_s: float) -> Principal:
    """Checks the claims of a token whose signature is good (WLCG token profile 1.0)."""
    if text(claims, "wlcg.ver").partition(".")[0] != "1":
        raise BadTokenError("unknown major version of the WLCG profile")
    subject = text(claims, "sub")
    if len(subject) > MAX_SUBJECT_CHARACTERS:
        raise BadTokenError("sub is too long")
    text(claims, "jti")
    audiences = claims.get("aud")
    if audience not in (audiences if isinstance(audiences, list) else [audiences]):
        raise BadTokenError("aud is another one")
    if instant(claims, "iat") > now_s + CLOCK_LEEWAY_S:
        raise BadTokenError("iat lies in the future")
    if "nbf" in claims and instant(claims, "nbf") > now_s + CLOCK_LEEWAY_S:
        raise BadTokenError("nbf lies in the future")
    expires_s = instant(claims, "exp")
    job, attempt = _job(claims)
    principal = Principal(
        issuer=text(claims, "iss" if job is None else "gridlane.owner_issuer"),
        subject=subject,
        display_name=str(claims.get("name", "")),
        vos=texts(claims, "gridlane.vos"),
        groups=texts(claims, "wlcg.groups"),
        scopes=frozenset(text(claims, "scope").split()) if claims.get("scope") else None,
        kind=PrincipalKind.USER if job is None else PrincipalKind.JOB,
        job=job,
        attempt=attempt,
        token_expires_us=int(expires_s * 1_000_000),
    )
    if now_s >= expires_s:
        raise errors.token_expired()
    return principal


def _job(claims: Mapping[str, Any]) -> tuple[str | None, int | None]:
    kind = text(claims, "gridlane.kind")
    if kind == PrincipalKind.USER:
        return None, None
    attempt = claims.get("gridlane.attempt")
    if kind != PrincipalKind.JOB or not isinstance(attempt, int):
        raise BadTokenError("neither a user's token nor a job's")
    return text(claims, "gridlane.job"), attempt
