"""Public keys of an issuer: which of a JWKS may prove a token, and whether they do.

Responsible for choosing what is usable of a JWKS (RFC 7517) and for the proof of a signature. Keys
that cannot sign tokens of the profile (encryption, other curves, short RSA keys) are passed over:
issuers publish many. Not for where a JWKS comes from (`issuer_keys`).

A retired key carries `exp`, seconds since the epoch: from then on it proves nothing (the member is
that of OpenID Federation's historical keys).
"""

import base64
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, RSAKey

from gridlane_kit.claims import UnprovenJwt

ALGORITHMS: Final = ("ES256", "RS256")
"""Signature algorithms accepted (WLCG token profile 1.0: these two and no others)."""

MAX_KEYS: Final = 64
"""Keys of one issuer that are looked at."""
RSA_BITS: Final = range(2048, 8193)
"""Sizes of RSA keys: shorter ones are not safe, longer ones slow to prove with."""

# Members of the header that nobody knows are passed over (RFC 7515, 4); `token_profile` says which
# are refused.
_REGISTRIES: Final = {
    algorithm: jws.JWSRegistry(algorithms=[algorithm], strict_check_header=False)
    for algorithm in ALGORITHMS
}


class JwksError(ValueError):
    """It is no JWKS, or has no key that can prove a token."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """One key that proves tokens signed with `algorithm`; `until_s`: not from then on (UTC)."""

    algorithm: str
    kid: str | None
    thumbprint: str
    key: ECKey | RSAKey
    until_s: float | None = None

    @property
    def identity(self) -> tuple[str, str | None, str]:
        """What makes it this key and no other one."""
        return (self.algorithm, self.kid, self.thumbprint)

    def proves(self, token: UnprovenJwt) -> bool:
        """Whether the token was signed with the private half."""
        return is_signed_with(token, self.algorithm, self.key)


class PublicKeys:
    """The usable keys of one issuer at one time."""

    def __init__(self, keys: Iterable[PublicKey]) -> None:
        self._keys = tuple(keys)

    @classmethod
    def read(cls, jwks: object) -> "PublicKeys":
        """Takes what is usable of a JWKS.

        Raises:
            JwksError: that is nothing.
        """
        entries = jwks.get("keys") if isinstance(jwks, Mapping) else None
        if not isinstance(entries, list):
            raise JwksError("no JWKS: expected an object with a list 'keys'")
        keys = [key for entry in entries[:MAX_KEYS] if (key := _usable(entry)) is not None]
        if not keys:
            raise JwksError("the JWKS has no key for ES256 or RS256")
        return cls(keys)

    def find(self, algorithm: str, kid: str | None) -> tuple[PublicKey, ...]:
        """Returns the keys that may have signed a token whose header says so.

        A token without a key id is the issuer's only key's of that algorithm, or nobody's: trying
        many would let everybody make this server work.
        """
        now_s = time.time()
        found = tuple(
            key
            for key in self._keys
            if key.algorithm == algorithm and (key.until_s is None or now_s < key.until_s)
        )
        if kid is None:
            return found if len(found) == 1 else ()
        return tuple(key for key in found if key.kid == kid)

    def kept_in(self, later: "PublicKeys") -> bool:
        """Whether each of these keys is still one of `later`."""
        left = {key.identity for key in later._keys}
        return all(key.identity in left for key in self._keys)

    @property
    def kids(self) -> tuple[str, ...]:
        """The ids of the keys that have one."""
        return tuple(key.kid for key in self._keys if key.kid)

    @property
    def names(self) -> tuple[str, ...]:
        """The keys' ids with their algorithms, for people."""
        return tuple(f"{key.kid or 'without id'} ({key.algorithm})" for key in self._keys)


def is_signed_with(token: UnprovenJwt, algorithm: str, key: ECKey | RSAKey) -> bool:
    """Whether a token was signed with the private half of a key, by this algorithm and no other."""
    try:
        jws.deserialize_compact(token.encoded, key, registry=_REGISTRIES[algorithm])
    except (JoseError, ValueError, TypeError):
        return False
    return True


def _usable(entry: object) -> PublicKey | None:
    if not isinstance(entry, Mapping) or not _is_for_signatures(entry):
        return None
    try:
        key = _imported(entry)
        if key is None:
            return None
        algorithm = "ES256" if isinstance(key, ECKey) else "RS256"
        kid, until_s = entry.get("kid"), entry.get("exp")
        if entry.get("alg", algorithm) != algorithm or not isinstance(kid, str | None):
            return None
        if until_s is not None and (isinstance(until_s, bool) or not isinstance(until_s, int)):
            return None
        return PublicKey(algorithm, kid, key.thumbprint(), key, until_s)
    except (JoseError, ValueError, TypeError, KeyError, OverflowError):
        return None


def _is_for_signatures(entry: Mapping[str, Any]) -> bool:
    if "d" in entry:
        return False  # the private half was published: it is everybody's key
    operations = entry.get("key_ops", ["verify"])
    return entry.get("use", "sig") == "sig" and (
        isinstance(operations, list) and "verify" in operations
    )


def _imported(entry: Mapping[str, Any]) -> ECKey | RSAKey | None:
    kind = entry.get("kty")
    if kind == "EC" and entry.get("crv") == "P-256":
        return ECKey.import_key({name: entry[name] for name in ("kty", "crv", "x", "y")})
    if kind == "RSA" and _bits(entry["n"]) in RSA_BITS:
        return RSAKey.import_key({name: entry[name] for name in ("kty", "n", "e")})
    return None


def _bits(modulus: str) -> int:
    padded = modulus + "=" * (-len(modulus) % 4)
    return int.from_bytes(base64.urlsafe_b64decode(padded)).bit_length()
