"""The quick ways to read and to run a statement give what SQLAlchemy's own give."""

from functools import partial
from typing import NamedTuple

from sqlalchemy import (
    Column,
    Connection,
    Integer,
    LargeBinary,
    String,
    Table,
    bindparam,
    select,
    text,
    update,
)

from gridlane_kit.database import (
    Database,
    RowUpdate,
    insert_rows,
    rows_by_key,
    run_kept,
    service_metadata,
)

_METADATA = service_metadata()
_THING = Table(
    "thing",
    _METADATA,
    Column("name", String(50), primary_key=True),
    Column("size", Integer, nullable=False),
    Column("content", LargeBinary, nullable=False),
)
_GROW = (
    update(_THING)
    .where(_THING.c.name == "three")
    .values(size=_THING.c.size + bindparam("by"))
    .returning(_THING.c.size)
)
_NAMES = ("one", "two", "three", "four", "five")
_LOCKS = text("SELECT mode FROM pg_locks WHERE relation = 'thing'::regclass")


class _Thing(NamedTuple):
    """A row, its fields in another order than the table's."""

    content: bytes
    size: int
    name: str


async def _open(url: str) -> Database:
    database = await Database.open(url, metadata=_METADATA, migrations=None, migrate=True)
    rows = [
        {"name": name, "size": number, "content": name.encode()}
        for number, name in enumerate(_NAMES)
    ]
    await database.write(lambda conn: insert_rows(conn, _THING, rows))
    return database


async def test_rows_are_found_by_any_number_of_keys(database_url: str) -> None:
    database = await _open(database_url)

    def asked(conn: Connection, names: tuple[str, ...]) -> set[tuple[object, ...]]:
        rows = rows_by_key(conn, (_THING.c.name, _THING.c.content), _THING.c.name, names)
        assert len(rows) == len(set(rows)), "a row came twice"
        return {tuple(row) for row in rows}

    try:
        for count in range(len(_NAMES) + 1):
            names = _NAMES[:count]
            found = await database.read(partial(asked, names=(*names, "none")))
            assert found == {(name, name.encode()) for name in names}
    finally:
        await database.close()


async def test_no_key_finds_no_row(database_url: str) -> None:
    database = await _open(database_url)
    try:
        rows = await database.read(
            lambda conn: rows_by_key(conn, (_THING.c.size,), _THING.c.name, ())
        )
        assert list(rows) == []
    finally:
        await database.close()


async def test_a_kept_statement_takes_its_own_values_and_those_given(database_url: str) -> None:
    database = await _open(database_url)

    def grown(conn: Connection, by: int) -> object:
        return run_kept(conn, _GROW, by=by).scalar()

    try:
        for by, size in ((5, 7), (1, 8)):
            assert await database.write(partial(grown, by=by)) == size
    finally:
        await database.close()


async def test_rows_that_are_read_can_be_locked(database_url: str) -> None:
    database = await _open(database_url)

    def modes(conn: Connection, *, locked: bool) -> set[str]:
        rows = rows_by_key(conn, (_THING.c.size,), _THING.c.name, ("one", "two"), locked=locked)
        assert sorted(size for (size,) in rows) == [0, 1]
        if conn.dialect.name != "postgresql":  # SQLite has one writer
            return {"RowShareLock"} if locked else set()
        return set(conn.execute(_LOCKS).scalars())

    try:
        assert "RowShareLock" not in await database.write(partial(modes, locked=False))
        assert "RowShareLock" in await database.write(partial(modes, locked=True))
    finally:
        await database.close()


async def test_many_rows_are_written_and_nothing_else_of_them(database_url: str) -> None:
    database = await _open(database_url)
    write = RowUpdate(_THING, _Thing, key=["name"], columns=["size"])
    things = [_Thing(b"not written", 10, "one"), _Thing(b"", 20, "two"), _Thing(b"", 9, "none")]
    try:
        for rows in (things, []):
            await database.write(partial(write, rows=rows))
        found = await database.read(
            lambda conn: conn.execute(select(*(_THING.c[name] for name in _Thing._fields))).all()
        )
        assert {_Thing(*row) for row in found} == {
            _Thing(b"one", 10, "one"),
            _Thing(b"two", 20, "two"),
            *(_Thing(name.encode(), _NAMES.index(name), name) for name in _NAMES[2:]),
        }
    finally:
        await database.close()
