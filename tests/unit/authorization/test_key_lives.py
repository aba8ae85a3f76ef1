"""What becomes of signing keys: rules that hold whatever happens in whatever order."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane_authorization import key_lives
from gridlane_authorization.key_lives import Found, Jwk
from gridlane_authorization.store.signing_keys import KeyState, StoredKey

LONGEST_US: Final = 1_000_000_000
SECOND_US: Final = 1_000_000
BEGUN_US: Final = 1_700_000_000_000_000
ACTIVE, PUBLISHED = KeyState.ACTIVE, KeyState.PUBLISHED
RETIRED, REVOKED = KeyState.RETIRED, KeyState.REVOKED


def jwk(kid: str, **more: object) -> Jwk:
    return {"kid": kid, "kty": "EC", "x": kid, "y": kid, **more}


def row(kid: str, state: KeyState, activate_us: int = BEGUN_US) -> StoredKey:
    made = key_lives.new_row(jwk(kid), state, BEGUN_US, activate_us)
    if state in (RETIRED, REVOKED):
        return replace(made, retire_time_us=BEGUN_US, expires_us=BEGUN_US + LONGEST_US)
    return made


def states(rows: Sequence[StoredKey]) -> dict[str, KeyState]:
    return {key.kid: key.state for key in rows}


def found(kid: str, *published: Jwk, staged: Sequence[str] = ()) -> Found:
    return Found(jwk(kid), published or None, frozenset(staged))


@dataclass
class Keys:
    """Rows and files, as they are brought in line again and again."""

    rows: dict[str, StoredKey] = field(default_factory=dict)
    signs: str = "k0"
    published: list[Jwk] = field(default_factory=lambda: [jwk("k0")])
    staged: set[str] = field(default_factory=set)
    now_us: int = BEGUN_US
    made: int = 0
    revoked: set[str] = field(default_factory=set)

    def settle(self) -> None:
        found = Found(jwk(self.signs), tuple(self.published), frozenset(self.staged))
        changed = key_lives.moved(list(self.rows.values()), found, self.now_us, LONGEST_US)
        self.rows |= {key.kid: key for key in changed}
        again = key_lives.moved(list(self.rows.values()), found, self.now_us, LONGEST_US)
        assert not again, "what was done is done again"
        self.published = list(key_lives.jwks_of(list(self.rows.values()), self.now_us))
        self.signs = self.active
        waiting = {key.kid for key in self.rows.values() if key.state is PUBLISHED}
        self.staged &= waiting

    @property
    def active(self) -> str:
        (kid,) = [key.kid for key in self.rows.values() if key.state is ACTIVE]
        return kid

    def rotate(self, wait_s: int, *, revoke: bool) -> None:
        waits = any(key.state is PUBLISHED for key in self.rows.values())
        if waits and not revoke:
            return
        kid, state = self.new(), PUBLISHED if wait_s and not revoke else ACTIVE
        made = key_lives.new_row(jwk(kid), state, self.now_us, self.now_us + wait_s * SECOND_US)
        self.staged.add(kid)
        changed = key_lives.replaced(
            list(self.rows.values()),
            made,
            revoke=revoke,
            now_us=self.now_us,
            longest_us=LONGEST_US,
        )
        self.rows |= {key.kid: key for key in changed}

    def command(self, *, keep: bool) -> None:
        """`gridlane-server rotate-key`."""
        kid = self.new()
        ends = self.now_us // SECOND_US + 500
        before = [{"exp": ends, **entry} for entry in self.published] if keep else []
        self.published, self.signs = [jwk(kid), *before], kid

    def new(self) -> str:
        self.made += 1
        return f"k{self.made}"

    def check(self) -> None:
        """What always holds once all is in line."""
        assert len(self.active) > 0
        self.revoked |= {key.kid for key in self.rows.values() if key.state is REVOKED}
        assert all(self.rows[kid].state is REVOKED for kid in self.revoked)
        believed = {str(entry["kid"]) for entry in self.published}
        assert self.signs in believed
        assert not believed & self.revoked
        for key in self.rows.values():
            assert (key.retire_time_us is None) == (key.state in (ACTIVE, PUBLISHED))
            assert (key.expires_us is None) == (key.retire_time_us is None)


STEPS: Final = st.lists(
    st.one_of(
        st.tuples(st.just("rotate"), st.integers(0, 20), st.booleans()),
        st.tuples(st.just("command"), st.booleans()),
        st.tuples(st.just("time"), st.integers(1, 700)),
        st.tuples(st.just("settle")),
    ),
    max_size=12,
)


@given(STEPS)
def test_one_key_signs_and_none_comes_back(steps: Sequence[tuple[object, ...]]) -> None:
    keys = Keys()
    keys.settle()
    for step in steps:
        match step:
            case ("rotate", int(wait_s), bool(revoke)):
                keys.settle()
                keys.rotate(wait_s, revoke=revoke)
            case ("command", bool(keep)):
                keys.command(keep=keep)
            case ("time", int(seconds)):
                keys.now_us += seconds * SECOND_US
            case _:
                keys.settle()
                keys.check()
    keys.settle()
    keys.check()


def test_files_without_rows_are_taken_as_they_are() -> None:
    now_s = BEGUN_US // SECOND_US
    files = found("k3", jwk("k3"), jwk("k2", exp=now_s + 60), jwk("k1", exp=now_s - 1), jwk("k0"))
    learnt = {key.kid: key for key in key_lives.adopted([], files, BEGUN_US, LONGEST_US)}
    assert states(list(learnt.values())) == {"k3": ACTIVE, "k2": RETIRED, "k0": RETIRED}
    assert learnt["k2"].expires_us == (now_s + 60) * SECOND_US
    # One without an end was left behind by a change that did not come to its own.
    assert learnt["k0"].expires_us == BEGUN_US + LONGEST_US
    assert "exp" not in json.loads(learnt["k2"].public_jwk)


@pytest.mark.parametrize("published", [(), (jwk("k0"),)])
def test_a_key_without_its_jwks_says_nothing_of_the_others(published: tuple[Jwk, ...]) -> None:
    """The one file is replaced before the other, or is not there."""
    stored = [row("k0", ACTIVE), row("old", RETIRED)]
    learnt = key_lives.adopted(stored, found("k9", *published), BEGUN_US, LONGEST_US)
    assert states(learnt) == {"k0": RETIRED, "k9": ACTIVE}


def test_what_a_jwks_gave_up_is_revoked() -> None:
    stored = [row("k1", ACTIVE), row("k2", PUBLISHED), row("k0", RETIRED)]
    learnt = key_lives.adopted(stored, found("k9", jwk("k9"), jwk("k0")), BEGUN_US, LONGEST_US)
    assert states(learnt) == {"k1": REVOKED, "k2": REVOKED, "k9": ACTIVE}


@pytest.mark.parametrize(
    ("late_us", "staged", "then"),
    [
        (-1, ("k2",), {}),
        (0, ("k2",), {"k1": RETIRED, "k2": ACTIVE}),
        (0, (), {}),
        (61 * SECOND_US, (), {"k2": REVOKED}),
    ],
)
def test_a_key_begins_at_its_time_if_it_is_there(
    late_us: int, staged: Sequence[str], then: dict[str, KeyState]
) -> None:
    begins = BEGUN_US + SECOND_US
    stored = [row("k1", ACTIVE), row("k2", PUBLISHED, begins)]
    files = found("k1", jwk("k1"), jwk("k2"), staged=staged)
    assert states(key_lives.moved(stored, files, begins + late_us, LONGEST_US)) == then


def test_a_key_that_is_put_there_and_one_that_is_due_do_not_both_sign() -> None:
    stored = [row("k1", ACTIVE), row("k2", PUBLISHED, BEGUN_US)]
    files = found("k9", jwk("k9"), jwk("k1"), jwk("k2"), staged=["k2"])
    then = states(key_lives.moved(stored, files, BEGUN_US, LONGEST_US))
    assert then == {"k1": RETIRED, "k9": RETIRED, "k2": ACTIVE}


def test_no_end_lies_further_ahead_than_the_longest_token() -> None:
    files = found("k1", jwk("k1"), jwk("k0", exp=2**70))
    (old, _) = key_lives.adopted([], files, BEGUN_US, LONGEST_US)
    assert old.expires_us == BEGUN_US + LONGEST_US


def test_a_jwks_is_as_wanted_or_not() -> None:
    stored = [row("k1", ACTIVE), row("k0", RETIRED), row("lost", REVOKED)]
    wanted = key_lives.jwks_of(stored, BEGUN_US)
    assert [entry["kid"] for entry in wanted] == ["k1", "k0"]
    assert key_lives.is_published(stored, [*wanted], BEGUN_US)
    assert key_lives.is_published(stored, [{**wanted[1]}, {**wanted[0], "use": "sig"}], BEGUN_US)
    for other in ([wanted[0]], [*wanted, jwk("lost")], [{**wanted[0], "x": "?"}, wanted[1]], []):
        assert not key_lives.is_published(stored, other, BEGUN_US)
