"""The resume token of a task's watch."""

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gridlane_gateway.watch import Place
from gridlane_kit.errors import ErrorReason, GridlaneError

JOB = "jobs/01939f5e-0000-7000-8000-000000000001"


@given(
    st.text(max_size=40),
    st.booleans(),
    st.dictionaries(st.text(max_size=20), st.none() | st.text(max_size=40), max_size=5),
)
def test_a_place_comes_back_from_its_token(
    job_token: str, ended: bool, transfers: dict[str, str | None]
) -> None:
    place = Place(JOB, job_token, ended, transfers)
    assert Place.decoded(place.encoded(), JOB) == place


def test_the_empty_token_is_before_everything() -> None:
    assert Place.decoded("", JOB) == Place(JOB)


def encoded(content: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(content).encode()).decode()


@pytest.mark.parametrize(
    "token",
    [
        "!",
        "AAAA",
        "é",
        encoded({"a": 1}),
        encoded([1, JOB, "", False]),
        encoded([2, JOB, "", False, {}]),
        encoded([1, "jobs/other", "", False, {}]),
        encoded([1, JOB, 3, False, {}]),
        encoded([1, JOB, "", 1, {}]),
        encoded([1, JOB, "", False, {"t": 4}]),
        encoded([1, JOB, "", False, []]),
    ],
)
def test_what_is_no_token_of_this_watch_is_refused(token: str) -> None:
    with pytest.raises(GridlaneError) as refused:
        Place.decoded(token, JOB)
    assert refused.value.reason is ErrorReason.TOKEN_NOT_OURS
