"""The lives of signing keys: what becomes of which key when.

Responsible for the rules, as plain functions on rows and on what the files say; no I/O. A key is
PUBLISHED, then ACTIVE, then RETIRED; from each of them it may become REVOKED. One at a time is
ACTIVE, and at most one PUBLISHED. Not for the files (`key_files`), nor for when somebody looks
(`key_upkeep`).

The rows are the truth, but for one thing: a key in the file that signs of which no row knows was
put there by the `rotate-key` command or by whoever keeps the files, and is adopted as the present
one (`adopted`).
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from gridlane.ids import uuid7
from gridlane_authorization.store.signing_keys import KeyState, StoredKey

Jwk = Mapping[str, Any]
_US: Final = 1_000_000
_WITHDRAWN_US: Final = 60 * _US
"""A key that is to sign and whose private half is nowhere is given up so long after its time."""


@dataclass(frozen=True, slots=True)
class Found:
    """What the files say.

    Parameters:
        present: the public half of the key that signs.
        published: the JWKS as it is; None: there is none that can be read.
        staged: the ids of the keys whose private halves lie beside.
    """

    present: Jwk
    published: Sequence[Jwk] | None
    staged: frozenset[str]

    @property
    def kid(self) -> str:
        """The id of the key that signs."""
        return str(self.present["kid"])


def new_row(jwk: Jwk, state: KeyState, now_us: int, activate_us: int) -> StoredKey:
    """Returns the row of a key that begins."""
    plain = {name: value for name, value in jwk.items() if name != "exp"}
    text = json.dumps(plain, sort_keys=True, separators=(",", ":"))
    return StoredKey(uuid7(), str(jwk["kid"]), state, text, now_us, activate_us)


def moved(
    stored: Sequence[StoredKey], found: Found, now_us: int, longest_us: int
) -> Sequence[StoredKey]:
    """Returns the keys that are not what they were, by the files and by the clock.

    Parameters:
        longest_us: how long a token is good at most.
    """
    learnt = {key.kid: key for key in adopted(stored, found, now_us, longest_us)}
    now = {key.kid: key for key in stored} | learnt
    due = _due(list(now.values()), found, now_us, longest_us)
    return list((learnt | {key.kid: key for key in due}).values())


def adopted(
    stored: Sequence[StoredKey], found: Found, now_us: int, longest_us: int
) -> Sequence[StoredKey]:
    """Returns what the rows must learn from the files.

    Whoever replaced the present key has said with the JWKS which of the others are good still: as
    `rotate-key --keep-days 0` says that none is.
    """
    known = {key.kid for key in stored}
    published = {str(jwk["kid"]): jwk for jwk in found.published or ()}
    learnt = [
        replace(new_row(jwk, KeyState.RETIRED, now_us, now_us), retire_time_us=now_us, expires_us=e)
        for kid, jwk in published.items()
        if kid not in known | {found.kid} and (e := _ends_us(jwk, now_us, longest_us)) > now_us
    ]
    if found.kid in known:
        return learnt
    # A JWKS without the present key is not the one that belongs to it, and says nothing.
    told = found.kid in published
    for key in stored:
        if key.state is KeyState.REVOKED:
            continue
        if told and key.kid not in published:
            learnt.append(revoked(key, now_us, longest_us))
        elif key.state is KeyState.ACTIVE:
            ends_us = _ends_us(published.get(key.kid, {}), now_us, longest_us)
            learnt.append(_retired(key, now_us, ends_us))
    return [*learnt, new_row(found.present, KeyState.ACTIVE, now_us, now_us)]


def replaced(
    stored: Sequence[StoredKey], new: StoredKey, *, revoke: bool, now_us: int, longest_us: int
) -> Sequence[StoredKey]:
    """Returns the keys that are not what they were when a new one begins.

    Parameters:
        new: ACTIVE, or PUBLISHED: then the present one stays.
        revoke: the present key is known to others, and so may be whatever lies beside it.
    """
    present = [key for key in stored if key.state is KeyState.ACTIVE]
    waiting = [key for key in stored if key.state is KeyState.PUBLISHED]
    if revoke:
        return [*(revoked(key, now_us, longest_us) for key in (*present, *waiting)), new]
    if new.state is KeyState.PUBLISHED:
        return [new]
    return [*(_retired(key, now_us, now_us + longest_us) for key in present), new]


def revoked(key: StoredKey, now_us: int, longest_us: int) -> StoredKey:
    """Returns a key as it is when no token that it signed is accepted any more."""
    return replace(
        key,
        state=KeyState.REVOKED,
        retire_time_us=key.retire_time_us or now_us,
        expires_us=key.expires_us or now_us + longest_us,
    )


def jwks_of(stored: Sequence[StoredKey], now_us: int) -> Sequence[Jwk]:
    """Returns the public halves that prove tokens, the one that signs first; those that have
    retired with their end (`exp`, seconds)."""
    order = list(KeyState)
    order.remove(KeyState.ACTIVE)
    order.insert(0, KeyState.ACTIVE)
    good = [key for key in stored if key.proves(now_us)]
    return [_published(key) for key in sorted(good, key=lambda key: order.index(key.state))]


def is_published(stored: Sequence[StoredKey], published: Sequence[Jwk], now_us: int) -> bool:
    """Whether a JWKS has the keys that prove tokens, each with its end, and no others."""
    return set(map(_essence, jwks_of(stored, now_us))) == set(map(_essence, published))


def in_state(stored: Sequence[StoredKey], state: KeyState) -> StoredKey | None:
    """Returns the key that is PUBLISHED, or ACTIVE; None: there is none."""
    return next((key for key in stored if key.state is state), None)


def _essence(jwk: Jwk) -> tuple[object, ...]:
    """What makes a key this one, until then; whoever wrote it may have said more."""
    return tuple(str(jwk.get(name)) for name in ("kid", "kty", "x", "y", "exp"))


def _due(
    stored: Sequence[StoredKey], found: Found, now_us: int, longest_us: int
) -> Sequence[StoredKey]:
    """The keys that begin to sign, and what becomes of those before them."""
    waiting = in_state(stored, KeyState.PUBLISHED)
    if waiting is None or now_us < waiting.activate_time_us:
        return ()
    if waiting.kid in found.staged:
        active = replace(waiting, state=KeyState.ACTIVE, activate_time_us=now_us)
        return replaced(stored, active, revoke=False, now_us=now_us, longest_us=longest_us)
    lost = now_us > waiting.activate_time_us + _WITHDRAWN_US
    return [revoked(waiting, now_us, longest_us)] if lost else ()


def _retired(key: StoredKey, now_us: int, ends_us: int) -> StoredKey:
    return replace(key, state=KeyState.RETIRED, retire_time_us=now_us, expires_us=ends_us)


def _ends_us(jwk: Jwk, now_us: int, longest_us: int) -> int:
    """When a key of a JWKS that does not sign ends; one without an end was left behind by a change
    that did not come to its own. No token lasts longer."""
    latest_us = now_us + longest_us
    return min(jwk["exp"] * _US, latest_us) if "exp" in jwk else latest_us


def _published(key: StoredKey) -> Jwk:
    jwk: dict[str, Any] = json.loads(key.public_jwk)
    if key.expires_us is not None:
        jwk["exp"] = -(-key.expires_us // _US)
    return jwk
