"""When a call is made again, and after how long: the rules."""

import grpc
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane import errors
from gridlane.retry import RetryPolicy, passes_by_itself

KINDS = sorted(errors.GridlaneError.__subclasses__(), key=lambda kind: kind.__name__)
PASSING = {errors.Unavailable, errors.Aborted, errors.ResourceExhausted}

policies = st.builds(
    RetryPolicy,
    first_delay_s=st.floats(0.001, 10),
    factor=st.floats(1, 4),
    longest_delay_s=st.floats(0.001, 60),
    max_attempts=st.integers(1, 50),
)
failures = st.builds(
    lambda kind, after: kind("failed", retry_after_s=after),
    st.sampled_from(KINDS),
    st.none() | st.floats(0, 100),
)
attempts = st.integers(1, 60)
remaining = st.floats(-5, 200)
draws = st.floats(0, 1, exclude_max=True)


@given(policies, failures, attempts, remaining, draws)
def test_no_pause_outlasts_the_deadline(
    policy: RetryPolicy,
    error: errors.GridlaneError,
    attempt: int,
    left: float,
    draw: float,
) -> None:
    pause = policy.pause_s(error, attempt, left, lambda: draw)
    assert pause is None or 0 <= pause < left


@given(policies, failures, attempts, draws)
def test_what_the_server_asks_for_is_waited_and_not_much_longer(
    policy: RetryPolicy, error: errors.GridlaneError, attempt: int, draw: float
) -> None:
    pause = policy.pause_s(error, attempt, float("inf"), lambda: draw)
    if pause is not None:
        asked = error.retry_after_s or 0.0
        assert asked <= pause <= asked + policy.longest_delay_s


@given(policies, failures, remaining, draws)
def test_attempts_are_bounded(
    policy: RetryPolicy, error: errors.GridlaneError, left: float, draw: float
) -> None:
    assert policy.pause_s(error, policy.max_attempts, left, lambda: draw) is None


@given(policies, failures, attempts)
def test_only_what_passes_by_itself_is_repeated(
    policy: RetryPolicy, error: errors.GridlaneError, attempt: int
) -> None:
    pause = policy.pause_s(error, attempt, float("inf"))
    if type(error) not in PASSING:
        assert pause is None
    elif attempt < policy.max_attempts and error.retry_after_s is not None:
        assert pause is not None


@given(st.floats(0.01, 1), st.floats(1, 3))
def test_the_bound_grows_until_it_is_the_longest(first: float, factor: float) -> None:
    policy = RetryPolicy(first_delay_s=first, factor=factor, longest_delay_s=2, max_attempts=99)
    error = errors.Unavailable("away")
    bounds = [policy.pause_s(error, n, float("inf"), lambda: 1.0) for n in range(1, 60)]
    known = [bound for bound in bounds if bound is not None]
    assert known == sorted(known)
    assert max(known) <= 2


def test_a_full_disk_is_not_waited_for() -> None:
    """RESOURCE_EXHAUSTED without a time to come again is a quota, not a queue."""
    assert not passes_by_itself(errors.ResourceExhausted("no space", reason="NO_SPACE"))
    assert passes_by_itself(errors.ResourceExhausted("full", retry_after_s=1))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_error_has_a_code_of_its_own(kind: type[errors.GridlaneError]) -> None:
    same = [other for other in KINDS if other.code is kind.code]
    assert same == [kind]
    assert kind.code is not grpc.StatusCode.OK
