"""Bearer tokens: signing Gridlane's own, and turning a token into a Principal.

Responsible for the form of Gridlane's own tokens (JWT, ES256; the claims of the WLCG token profile
1.0 and a few more, `gridlane.*`) and for the order in which a token is checked before its bearer is
believed. Not for the rules themselves (`token_profile`), for where private keys lie (Authorization
keeps them) nor for what the caller may do (`decision`). What is wrong with a token is logged, never
told: a caller learns TOKEN_INVALID or TOKEN_EXPIRED, and the trace id under which the log has it.
"""

import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, Final

from joserfc import jwt
from joserfc.jwk import ECKey

from gridlane_kit import errors
from gridlane_kit.claims import BadTokenError, describe, read_jwt
from gridlane_kit.identity import SERVICE_ISSUER, Principal, PrincipalKind, Proof, Trust
from gridlane_kit.issuer_keys import KeySource
from gridlane_kit.issuer_keys import StaticKeys as StaticKeys
from gridlane_kit.issuers import IssuerBook, TrustedIssuer
from gridlane_kit.jwks import ALGORITHMS
from gridlane_kit.token_profile import WLCG_VERSION, IssuerProfile, principal_of, signing_header

_log: Final = logging.getLogger(__name__)


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
        others: public halves (JWK) of keys before this one, each of which proves until its `exp`,
            and of those after it.
    """

    def __init__(
        self,
        key: ECKey,
        issuer: str,
        audience: str,
        others: Sequence[Mapping[str, Any]] = (),
    ) -> None:
        self._key = key
        self._others = tuple(others)
        self._followers: list[Callable[[], None]] = []
        self.issuer = issuer
        self.audience = audience
        self.keys = StaticKeys(self.jwks())
        """The public halves: proves in this process what is signed here."""

    @property
    def key(self) -> ECKey:
        """The private key that signs. A secret."""
        return self._key

    def jwks(self) -> dict[str, Any]:
        """Returns the public halves, as a JWKS."""
        return {"keys": [self._key.as_dict(private=False), *self._others]}

    def replace_key(self, key: ECKey, others: Sequence[Mapping[str, Any]]) -> None:
        """Signs with this key from now on, believes it and the others, and tells who follows when
        it is another one than before.

        Parameters:
            others: as for the constructor.
        """
        before, self._key = self._key, key
        self._others = tuple(others)
        self.keys.replace(self.jwks())
        if key.kid != before.kid:
            for follower in self._followers:
                follower()

    def subscribe(self, follower: Callable[[], None]) -> None:
        """Has `follower` called after each change of the key."""
        self._followers.append(follower)

    def sign_user(
        self,
        subject: str,
        *,
        lifetime_s: int,
        display_name: str = "",
        vos: Collection[str] = (),
        groups: Iterable[str] = (),
        scopes: Iterable[str] | None = None,
    ) -> str:
        """Signs a user's token, good for `lifetime_s` seconds from now.

        Parameters:
            groups: the first is the one in which the user acts by default.
        """
        return self._sign(subject, lifetime_s, _of_user(display_name, vos, groups, scopes))

    def sign_for(
        self, principal: Principal, *, token_id: str, audience: str, issued_s: int, expires_s: int
    ) -> str:
        """Signs a token that proves a user's principal as it is.

        Parameters:
            principal: its identity may be another issuer's (claim `gridlane.owner_issuer`).
            token_id, audience: `jti` and `aud`.
            issued_s, expires_s: from when until when it is good, seconds since the epoch (UTC).
        """
        claims = _of_user(
            principal.display_name, principal.vos, sorted(principal.groups), principal.scopes
        )
        claims["gridlane.active_group"] = principal.active_group
        if principal.issuer != self.issuer:
            claims["gridlane.owner_issuer"] = principal.issuer
        its = {"jti": token_id, "aud": audience, **_good(issued_s, expires_s)}
        return self._signed(principal.subject, claims | its)

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
        its = {"jti": secrets.token_urlsafe(16), "aud": self.audience}
        return self._signed(subject, {**claims, **its, **_good(now, now + lifetime_s)})

    def _signed(self, subject: str, claims: Mapping[str, Any]) -> str:
        profile = {"wlcg.ver": WLCG_VERSION, "iss": self.issuer, "sub": subject}
        header = {"alg": "ES256", "kid": self._key.kid}
        return jwt.encode(header, {**claims, **profile}, self._key, algorithms=["ES256"])


def _of_user(
    display_name: str, vos: Collection[str], groups: Iterable[str], scopes: Iterable[str] | None
) -> dict[str, Any]:
    claims: dict[str, Any] = {
        "gridlane.kind": PrincipalKind.USER.value,
        "gridlane.vos": sorted(vos),
        "wlcg.groups": list(dict.fromkeys(groups)),
    }
    if display_name:
        claims["name"] = display_name
    if scopes is not None:
        claims["scope"] = " ".join(sorted(scopes))
    return claims


def _good(issued_s: int, expires_s: int) -> Mapping[str, int]:
    return {"iat": issued_s, "nbf": issued_s, "exp": expires_s}


class TokenVerifier:
    """Turns bearer tokens into principals. What was proven is remembered by `sessions`.

    Parameters:
        issuers: Gridlane's own issuers, each with the source of its keys; compared exactly.
        audience: the deployment's audience, which every token of theirs must carry.
        outside: the other issuers that are believed.

    Raises:
        ValueError: an issuer has the name of a service, whose word counts in assertions alone.
    """

    def __init__(
        self,
        issuers: Mapping[str, KeySource],
        audience: str,
        outside: IssuerBook | None = None,
    ) -> None:
        if any(issuer.startswith(SERVICE_ISSUER) for issuer in issuers):
            raise ValueError(f"no issuer of users' tokens is called {SERVICE_ISSUER}…")
        profile = IssuerProfile(frozenset({audience}))
        self._own = {
            url: TrustedIssuer(profile, keys, frozenset(ALGORITHMS))
            for url, keys in issuers.items()
        }
        self._outside = outside
        self._both: dict[tuple[Trust, Trust], Trust] = {}

    async def verify(self, token: str) -> Principal:
        """Returns the principal that a token proves; raises as `prove` does."""
        return (await self.prove(token)).principal

    async def prove(self, token: str) -> Proof:
        """Returns the principal that a token proves, and until when.

        Raises:
            GridlaneError: TOKEN_INVALID, TOKEN_EXPIRED; what the issuer's source of keys raises.
        """
        try:
            proof = await self._proven(token)
        except (BadTokenError, ValueError) as error:
            _log.warning("token refused: %s", describe(error))
            raise errors.token_invalid() from None
        if time.time() >= proof.expires_s:
            raise errors.token_expired()
        return proof

    async def _proven(self, encoded: str) -> Proof:
        token = read_jwt(encoded)
        algorithm, kid = signing_header(token)
        issuer = self._issuer(token.issuer)
        if issuer is None:
            raise BadTokenError("the issuer is not trusted")
        if algorithm not in issuer.algorithms:
            raise BadTokenError("alg is none of those of the issuer")
        keys = await issuer.keys.find(algorithm, kid)
        if self._issuer(token.issuer) is not issuer:
            return await self._proven(encoded)  # what is believed of it changed meanwhile
        trust = issuer.keys.trust
        key = next((key for key in keys if key.proves(token)), None)
        if key is None:
            raise BadTokenError("not signed with a key of the issuer")
        principal = principal_of(token.claims, issuer.profile, time.time())
        if principal.kind is PrincipalKind.USER and principal.issuer != token.issuer:
            theirs = self._issuer(principal.issuer)
            if theirs is None:
                raise BadTokenError("the issuer of the identity is not trusted")
            trust = self._resting_on(trust, theirs.word)
        ends_s = (principal.token_expires_us or 0) / 1e6
        return Proof(principal, min(ends_s, key.until_s or ends_s), trust)

    def _resting_on(self, keys: Trust, word: Trust) -> Trust:
        """What rests on the signer's keys and on the word of another issuer, whose user it is."""
        both = self._both.get((keys, word))
        if both is None:
            both = self._both[keys, word] = Trust()
            both.follow(partial(self._forget, keys, word))
            keys.follow(both.end)
            word.follow(both.end)
        return both

    def _forget(self, keys: Trust, word: Trust) -> None:
        both = self._both.pop((keys, word))
        keys.leave(both.end)
        word.leave(both.end)

    def _issuer(self, url: str) -> TrustedIssuer | None:
        own = self._own.get(url)
        if own is None and self._outside is not None:
            return self._outside.get(url)
        return own
