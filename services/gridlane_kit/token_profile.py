"""The WLCG token profile: what a token must say before it is believed.

Responsible for the rules on the header and on the claims of a users' token, whose signature is
proven elsewhere (`tokens`), and for the Principal that follows from them. Pure functions. Source:
WLCG Common JWT Profiles 1.0 (doi 10.5281/zenodo.3460257); JWT best current practices (RFC 8725).

An outside issuer speaks for one virtual organisation: its users belong to that one, and of groups
it asserts those of that one. Only Gridlane's own Authorization may say more (claims `gridlane.*`):
several organisations, which of the groups is the active one, that the bearer is a user of another
issuer (who exchanged a token), and that it is a job.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from gridlane_kit.claims import BadTokenError, UnprovenJwt, instant, text, texts
from gridlane_kit.identity import Principal, PrincipalKind, scope_is_whole
from gridlane_kit.jwks import ALGORITHMS

WLCG_VERSION: Final = "1.0"
ANY_AUDIENCE: Final = "https://wlcg.cern.ch/jwt/v1/any"
"""The audience of tokens that are meant for every service (WLCG profile)."""
CLOCK_LEEWAY_S: Final = 30
"""How far an issuer's clock may run ahead of ours for `iat` and `nbf`."""
MAX_SUBJECT_CHARACTERS: Final = 255
MAX_NAME_CHARACTERS: Final = 255
MAX_ID_CHARACTERS: Final = 255
"""Of `jti`; as the contract says of a token's name."""

GROUP_AGE_S: Final = 86_400.0
"""For how long groups are believed of work that runs later, where nothing else is said."""

_TYPES: Final = frozenset({"jwt", "at+jwt", "application/at+jwt"})
# Keys and their places are the issuer's to say, never the token's; nothing critical is understood.
_FORBIDDEN: Final = ("b64", "crit", "jku", "jwk", "x5c", "x5u")
_VERSION: Final = re.compile(r"1(\.[0-9]{1,3}){0,2}", re.ASCII)
MAX_GROUP_CHARACTERS: Final = 255
"""As the contract says of a binding's group, and the columns of rows made under one."""
_GROUP: Final = re.compile(r"(/[A-Za-z0-9][A-Za-z0-9_.-]*)+", re.ASCII)


@dataclass(frozen=True, slots=True)
class IssuerProfile:
    """What is believed of an issuer.

    `audiences`: a token must name one of them. `vo`: the one virtual organisation that an outside
    issuer speaks for; None for Gridlane's own Authorization. `max_lifetime_s`: the longest time
    from `iat` to `exp`, seconds; None: any. `max_group_age_s`: for how long the groups of a token
    are believed of work that was submitted with it, seconds.
    """

    audiences: frozenset[str]
    vo: str | None = None
    max_lifetime_s: float | None = None
    max_group_age_s: float = GROUP_AGE_S


class SigningHeader(NamedTuple):
    """How a token says that it is signed; no key id is None."""

    algorithm: str
    kid: str | None


def signing_header(token: UnprovenJwt) -> SigningHeader:
    """Returns the algorithm and key id of a token whose header is acceptable.

    Raises:
        BadTokenError: it is not.
    """
    header = token.header
    if any(name in header for name in _FORBIDDEN):
        raise BadTokenError("the header names a key, or something critical")
    if header.get("alg") not in ALGORITHMS:
        raise BadTokenError("alg is none of those of the profile")
    kind = header.get("typ", "jwt")
    if not isinstance(kind, str) or kind.lower() not in _TYPES:
        raise BadTokenError("typ is another kind of token")
    kid = header.get("kid")
    if not isinstance(kid, str | None):
        raise BadTokenError("kid is no text")
    return SigningHeader(header["alg"], kid)


def principal_of(claims: Mapping[str, Any], profile: IssuerProfile, now_s: float) -> Principal:
    """Checks the claims of a token whose signature is good, and reads who it names.

    The end of its life is not checked: `token_expires_us` says when it is.

    Parameters:
        now_s: seconds since the epoch (UTC).

    Raises:
        BadTokenError: a claim breaks the profile.
    """
    if _VERSION.fullmatch(text(claims, "wlcg.ver")) is None:
        raise BadTokenError("wlcg.ver is not a version 1 of the profile")
    subject = text(claims, "sub")
    if len(subject) > MAX_SUBJECT_CHARACTERS or not subject.isprintable():
        raise BadTokenError("sub is too long, or has what cannot be printed")
    token_id = text(claims, "jti")
    if len(token_id) > MAX_ID_CHARACTERS:
        raise BadTokenError("jti is too long")
    _check_audience(claims.get("aud"), profile.audiences)
    expires_s = _end(claims, profile.max_lifetime_s, now_s)
    job, attempt = _job(claims) if profile.vo is None else (None, None)
    groups = _groups(claims, profile.vo)
    return Principal(
        issuer=_identity_issuer(claims, profile.vo is None, job is not None),
        subject=subject,
        display_name=_display_name(claims),
        vos=frozenset(texts(claims, "gridlane.vos") if profile.vo is None else [profile.vo]),
        groups=frozenset(groups),
        active_group=_active_group(claims, groups, profile.vo is None),
        scopes=_scopes(claims),
        kind=PrincipalKind.USER if job is None else PrincipalKind.JOB,
        job=job,
        attempt=attempt,
        token_expires_us=int(expires_s * 1_000_000),
        token_id=token_id,
        groups_until_us=int((now_s + profile.max_group_age_s) * 1_000_000) if groups else None,
    )


def _check_audience(claimed: object, audiences: Collection[str]) -> None:
    named = claimed if isinstance(claimed, list) else [claimed]
    if not all(isinstance(audience, str) for audience in named):
        raise BadTokenError("aud is missing or no text")
    if not any(audience in audiences or audience == ANY_AUDIENCE for audience in named):
        raise BadTokenError("aud is another one")


def _end(claims: Mapping[str, Any], longest_s: float | None, now_s: float) -> float:
    issued_s, ends_s = instant(claims, "iat"), instant(claims, "exp")
    if issued_s > now_s + CLOCK_LEEWAY_S:
        raise BadTokenError("iat lies in the future")
    if longest_s is not None and ends_s - issued_s > longest_s:
        raise BadTokenError("good for longer than tokens of its issuer may be")
    if "nbf" in claims and instant(claims, "nbf") > now_s + CLOCK_LEEWAY_S:
        raise BadTokenError("nbf lies in the future")
    return ends_s


def _groups(claims: Mapping[str, Any], vo: str | None) -> tuple[str, ...]:
    """The groups, in the issuer's order: the first is the one that it prefers."""
    groups = texts(claims, "wlcg.groups")
    if any(len(g) > MAX_GROUP_CHARACTERS or _GROUP.fullmatch(g) is None for g in groups):
        raise BadTokenError("wlcg.groups has what is no group")
    return tuple(group for group in groups if vo is None or f"{group}/".startswith(f"/{vo}/"))


def _identity_issuer(claims: Mapping[str, Any], own: bool, job: bool) -> str:
    """Whose identity it is: the signer's, but for what Gridlane signed for somebody else's."""
    foreign = job or (own and "gridlane.owner_issuer" in claims)
    return text(claims, "gridlane.owner_issuer" if foreign else "iss")


def _active_group(claims: Mapping[str, Any], groups: tuple[str, ...], own: bool) -> str:
    if not own or "gridlane.active_group" not in claims:
        return groups[0] if groups else ""
    active = claims["gridlane.active_group"]
    if active != "" and active not in groups:
        raise BadTokenError("gridlane.active_group is none of the groups")
    return str(active)


def _scopes(claims: Mapping[str, Any]) -> frozenset[str] | None:
    if "scope" not in claims:
        return None
    scope = claims["scope"]
    if not isinstance(scope, str) or not scope.isprintable():
        raise BadTokenError("scope is no printable text")
    scopes = frozenset(scope.split(" ")) - {""}
    if not all(map(scope_is_whole, scopes)):
        raise BadTokenError("a storage scope without an absolute path")
    return scopes


def _display_name(claims: Mapping[str, Any]) -> str:
    name = claims.get("name", "")
    if not isinstance(name, str) or not name.isprintable():
        return ""
    return name[:MAX_NAME_CHARACTERS]


def _job(claims: Mapping[str, Any]) -> tuple[str | None, int | None]:
    kind = text(claims, "gridlane.kind")
    if kind == PrincipalKind.USER:
        return None, None
    attempt = claims.get("gridlane.attempt")
    if kind != PrincipalKind.JOB or isinstance(attempt, bool) or not isinstance(attempt, int):
        raise BadTokenError("neither a user's token nor a job's")
    return text(claims, "gridlane.job"), attempt
