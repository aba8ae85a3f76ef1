"""Pages of listings (AIP-158): page sizes, page tokens, and keyset pagination.

Responsible for reading `page_size` and `page_token`, and for the one statement that fetches a page.
A page goes on after the last key of the one before, so a page costs the same wherever it lies, and
rows that come or go meanwhile shift nothing.

A token is opaque and bound to the parameters of its request. It is not secret and gives no right:
what the caller may see is decided by the listing's own WHERE for each page anew.
"""

import base64
import binascii
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Column, ColumnElement, Connection, Row, Select, literal, tuple_

from gridlane_kit import errors

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 1000
_MAX_TOKEN = 1000
_BINDING_BYTES = 8

KeyValue = int | str


class Keyset:
    """The order of a listing.

    Parameters:
        columns: the last one makes the key unique; integers and strings, none of them nullable. An
            index on them, after those that the listing filters by, makes a page cheap.
        descending: the direction, the same for all.
    """

    def __init__(self, *columns: Column[Any], descending: bool = False) -> None:
        self.columns = columns
        self.descending = descending

    def after(self, key: Sequence[KeyValue]) -> ColumnElement[bool]:
        """The condition that a row comes after `key`."""
        if len(self.columns) == 1:
            column, value = self.columns[0], literal(key[0])
            return column < value if self.descending else column > value
        columns = tuple_(*self.columns)
        values = tuple_(*(literal(value) for value in key))
        return columns < values if self.descending else columns > values

    def order(self) -> list[ColumnElement[Any]]:
        """What to order by."""
        return [column.desc() if self.descending else column.asc() for column in self.columns]

    def key_of(self, row: Row[Any]) -> list[KeyValue]:
        """The key of a row that has the columns."""
        return [row._mapping[column] for column in self.columns]

    def fits(self, key: Any) -> bool:
        """Whether `key` could be one: as many values, each of its column's type."""
        return (
            isinstance(key, list)
            and len(key) == len(self.columns)
            and all(
                type(value) is column.type.python_type and _storable(value)
                for value, column in zip(key, self.columns, strict=True)
            )
        )


@dataclass(frozen=True, slots=True)
class Page:
    """A page asked for: how many rows, after which key, for which request."""

    size: int
    after: Sequence[KeyValue] | None
    binding: bytes

    def token_after(self, key: Sequence[KeyValue]) -> str:
        """The token of the page after a key, for a listing that no statement makes."""
        return _encode(key, self.binding)


def page_request(
    keyset: Keyset, *, page_size: int, page_token: str, binding: Sequence[str]
) -> Page:
    """Read what a request says of its page.

    Parameters:
        page_size: as it came: 0 means 50, more than 1000 means 1000.
        page_token: as it came: empty for the first page.
        binding: everything of the request that decides which rows are listed: method, parent,
            filter, owner.

    Raises:
        GridlaneError: INVALID_FIELDS for a negative size, TOKEN_NOT_OURS for a token of another
            request.
    """
    if page_size < 0:
        raise errors.invalid([("page_size", f"0 to {MAX_PAGE_SIZE}")])
    bound = _digest(json.dumps(list(binding)).encode())
    return Page(
        size=min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE),
        after=_decode(keyset, page_token, bound) if page_token else None,
        binding=bound,
    )


def fetch_page(
    conn: Connection, statement: Select[Any], keyset: Keyset, page: Page
) -> tuple[Sequence[Row[Any]], str]:
    """Fetch a page.

    Parameters:
        statement: selects the keyset's columns among others; neither ordered nor limited.

    Returns:
        The rows, and the next page's token, empty when this is the last one.
    """
    if page.after is not None:
        statement = statement.where(keyset.after(page.after))
    # One row more than asked tells whether there is another page.
    rows = conn.execute(statement.order_by(*keyset.order()).limit(page.size + 1)).all()
    if len(rows) <= page.size:
        return rows, ""
    rows = rows[: page.size]
    return rows, next_page_token(keyset.key_of(rows[-1]), page)


def next_page_token(key: Sequence[KeyValue], page: Page) -> str:
    """Returns the token of the page that goes on after a key, for a listing that is made of more
    than one statement.

    Parameters:
        page: the one that ends with the key.
    """
    return _encode(key, page.binding)


def _encode(key: Sequence[KeyValue], binding: bytes) -> str:
    content = json.dumps(key, separators=(",", ":")).encode()
    return base64.urlsafe_b64encode(_digest(binding + content) + content).decode().rstrip("=")


def _decode(keyset: Keyset, token: str, binding: bytes) -> Sequence[KeyValue]:
    try:
        if len(token) > _MAX_TOKEN:
            raise ValueError("too long")
        raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
        content = raw[_BINDING_BYTES:]
        if raw[:_BINDING_BYTES] != _digest(binding + content):
            raise ValueError("of another request")
        key = json.loads(content)
    except (ValueError, binascii.Error) as error:
        raise errors.token_not_ours("page_token") from error
    if not keyset.fits(key):
        raise errors.token_not_ours("page_token")
    return list(key)


def _storable(value: KeyValue) -> bool:
    """Whether a database takes the value: no integer over 64 bits, no half of a surrogate pair, no
    NUL (PostgreSQL).
    """
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not any(character == "\0" or "\ud800" <= character <= "\udfff" for character in value)


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_BINDING_BYTES).digest()
