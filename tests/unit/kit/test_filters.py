"""Filters: what is documented is read, everything else is refused with words that help."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Column, Integer, MetaData, String, Table, create_engine, insert, select

from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.filters import RANGE, Field, Filter, FilterRules

RULES = FilterRules(
    {"state": Field(str), "vo": Field(str), "size": Field(int, RANGE)},
    combinations=[{"state"}, {"vo", "state"}, {"size"}],
)
JOBS = Table(
    "job",
    MetaData(),
    Column("state", String),
    Column("vo", String),
    Column("size", Integer),
)
COLUMNS = {"state": JOBS.c.state, "vo": JOBS.c.vo, "size": JOBS.c.size}


def refused(text: str) -> str:
    with pytest.raises(GridlaneError) as caught:
        RULES.parse(text)
    assert caught.value.reason is ErrorReason.FILTER_UNSUPPORTED
    return caught.value.message


@pytest.mark.parametrize("text", ["", "   "])
def test_an_empty_filter_is_no_condition(text: str) -> None:
    assert RULES.parse(text) == Filter()


def test_comparisons_are_joined_by_and_in_any_order() -> None:
    one = RULES.parse('state = "RUNNING" AND vo=local')
    other = RULES.parse('vo = "local"   AND   state=RUNNING')
    assert one == other
    assert one.canonical == other.canonical
    assert (one.value("state"), one.value("vo"), one.value("size")) == ("RUNNING", "local", None)


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=60))
def test_any_quoted_text_comes_back_as_it_was(text: str) -> None:
    quoted = text.replace("\\", "\\\\").replace('"', '\\"')
    assert RULES.parse(f'state = "{quoted}"').value("state") == text


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        read = RULES.parse(text)
    except GridlaneError:
        refused(text)
    else:
        assert RULES.parse(text) == read


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("vo = local", "vo cannot be asked for together"),
        ("state = A AND size = 1", "size AND state cannot be asked for together"),
        ("owner = me", "owner is not a field"),
        ("state < A", "state can be compared with ="),
        ("size = big", "size: invalid literal"),
        ("state =", "field = value"),
        ('state = "A\0"', "state: no text has a NUL"),
        ("state = = A", "not followed by a value"),
        ("state = A AND", "joined by AND"),
        ("state = A OR state = B", "joined by AND"),
        ('"state" = A', "field = value"),
        ('state = "A', "cannot be read at character 9"),
        ("(state = A)", "cannot be read at character 1"),
        ("state = A AND state = B", "may stand twice only"),
        ("size > 1 AND size >= 2", "may stand twice only"),
        ("state = " + "A" * 3000, "longer than"),
    ],
)
def test_what_is_not_documented_is_refused_with_the_cure(text: str, said: str) -> None:
    assert said in refused(text)


def test_a_range_is_bounded_from_both_sides() -> None:
    engine = create_engine("sqlite://")
    with engine.begin() as conn:
        JOBS.metadata.create_all(conn)
        conn.execute(insert(JOBS), [{"state": "A", "vo": "v", "size": n} for n in range(10)])
        where = RULES.parse("size >= 3 AND size < 6").where(COLUMNS)
        assert conn.scalars(select(JOBS.c.size).where(where)).all() == [3, 4, 5]
        everything = RULES.parse("").where(COLUMNS)
        assert len(conn.scalars(select(JOBS.c.size).where(everything)).all()) == 10


def test_rules_that_combine_unknown_fields_do_not_stand() -> None:
    with pytest.raises(ValueError, match="owner"):
        FilterRules({"state": Field(str)}, combinations=[{"state", "owner"}])
