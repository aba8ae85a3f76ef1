"""Pages: every row once, in order, whatever the size; a token is good for its own request only."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import (
    BigInteger,
    Column,
    Connection,
    MetaData,
    String,
    Table,
    create_engine,
    delete,
    insert,
    select,
)

from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.pages import Keyset, fetch_page, page_request

ITEMS = Table(
    "item",
    MetaData(),
    Column("uid", String, primary_key=True),
    Column("size", BigInteger, nullable=False),
)
BY_UID = Keyset(ITEMS.c.uid)
BY_SIZE_DOWN = Keyset(ITEMS.c.size, ITEMS.c.uid, descending=True)
BINDING = ("ListItems", "", "iss|me")


@pytest.fixture
def conn() -> Iterator[Connection]:
    with create_engine("sqlite://").begin() as connection:
        ITEMS.metadata.create_all(connection)
        yield connection


def fill(conn: Connection, sizes: dict[str, int]) -> None:
    conn.execute(delete(ITEMS))
    if sizes:
        conn.execute(insert(ITEMS), [{"uid": uid, "size": size} for uid, size in sizes.items()])


def walk(conn: Connection, keyset: Keyset, page_size: int) -> list[str]:
    seen: list[str] = []
    token = ""
    while True:
        page = page_request(keyset, page_size=page_size, page_token=token, binding=BINDING)
        rows, token = fetch_page(conn, select(ITEMS), keyset, page)
        assert len(rows) <= page_size
        seen += [row.uid for row in rows]
        if not token:
            return seen


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=5),
        st.integers(0, 3),
        max_size=30,
    ),
    st.integers(1, 12),
)
def test_the_pages_together_are_the_listing(sizes: dict[str, int], page_size: int) -> None:
    with create_engine("sqlite://").begin() as conn:
        ITEMS.metadata.create_all(conn)
        fill(conn, sizes)
        expected_down = [
            row.uid
            for row in conn.execute(select(ITEMS).order_by(ITEMS.c.size.desc(), ITEMS.c.uid.desc()))
        ]
        assert walk(conn, BY_UID, page_size) == sorted(sizes, key=lambda uid: uid.encode())
        assert walk(conn, BY_SIZE_DOWN, page_size) == expected_down


def test_rows_that_go_meanwhile_shift_nothing(conn: Connection) -> None:
    fill(conn, {f"{number:02d}": 0 for number in range(10)})
    first, token = fetch_page(
        conn,
        select(ITEMS),
        BY_UID,
        page_request(BY_UID, page_size=4, page_token="", binding=BINDING),
    )
    conn.execute(delete(ITEMS).where(ITEMS.c.uid.in_([row.uid for row in first])))
    second, _ = fetch_page(
        conn,
        select(ITEMS),
        BY_UID,
        page_request(BY_UID, page_size=4, page_token=token, binding=BINDING),
    )
    assert [row.uid for row in second] == ["04", "05", "06", "07"]


@pytest.mark.parametrize(("asked", "given_"), [(0, 50), (1, 1), (1000, 1000), (5000, 1000)])
def test_sizes_have_a_default_and_a_maximum(asked: int, given_: int) -> None:
    page = page_request(BY_UID, page_size=asked, page_token="", binding=BINDING)
    assert page.size == given_


def test_a_negative_size_is_refused() -> None:
    with pytest.raises(GridlaneError) as caught:
        page_request(BY_UID, page_size=-1, page_token="", binding=BINDING)
    assert caught.value.reason is ErrorReason.INVALID_FIELDS


def a_token(conn: Connection, keyset: Keyset = BY_UID) -> str:
    fill(conn, {"a": 1, "b": 2})
    page = page_request(keyset, page_size=1, page_token="", binding=BINDING)
    return fetch_page(conn, select(ITEMS), keyset, page)[1]


@pytest.mark.parametrize(
    "binding",
    [
        ("ListItems", "state = A", "iss|me"),
        ("ListItems", "", "iss|other"),
        ("ListOthers", "", "iss|me"),
        ("ListItems", "iss|me"),
    ],
)
def test_a_token_of_another_request_is_not_ours(conn: Connection, binding: Any) -> None:
    with pytest.raises(GridlaneError) as caught:
        page_request(BY_UID, page_size=1, page_token=a_token(conn), binding=binding)
    assert caught.value.reason is ErrorReason.TOKEN_NOT_OURS


@given(st.one_of(st.text(min_size=1, max_size=80), st.binary(min_size=1).map(lambda b: b.hex())))
def test_any_text_as_a_token_is_refused(token: str) -> None:
    with pytest.raises(GridlaneError) as caught:
        page_request(BY_UID, page_size=1, page_token=token, binding=BINDING)
    assert caught.value.reason is ErrorReason.TOKEN_NOT_OURS


@pytest.mark.parametrize(
    "key", [[], ["a", "b"], [1], [True], [None], {"a": 1}, ["\ud800"], ["\0"], "a"], ids=repr
)
def test_a_forged_token_reaches_no_statement(conn: Connection, key: Any) -> None:
    """Even one whose check is right: there is no secret in it."""
    from gridlane_kit import pages

    bound = page_request(BY_UID, page_size=1, page_token="", binding=BINDING).binding
    content = json.dumps(key).encode()
    forged = base64.urlsafe_b64encode(pages._digest(bound + content) + content).decode()
    with pytest.raises(GridlaneError) as caught:
        page_request(BY_UID, page_size=1, page_token=forged.rstrip("="), binding=BINDING)
    assert caught.value.reason is ErrorReason.TOKEN_NOT_OURS


def test_a_number_that_no_column_holds_is_refused(conn: Connection) -> None:
    from gridlane_kit import pages

    bound = page_request(BY_SIZE_DOWN, page_size=1, page_token="", binding=BINDING).binding
    forged = pages._encode([2**63, "a"], bound)
    with pytest.raises(GridlaneError):
        page_request(BY_SIZE_DOWN, page_size=1, page_token=forged, binding=BINDING)
