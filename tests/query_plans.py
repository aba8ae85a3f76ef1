"""How SQLite carries out what a store asks of it: whether it goes by an index."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event


def plans(conn: Connection, run: Callable[[Connection], Any]) -> str:
    """How SQLite carries out the statements of a function."""
    found: list[str] = []

    def explain(_: Any, cursor: Any, statement: str, parameters: Any, *__: Any) -> None:
        rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", parameters).fetchall()
        found.extend(row[3] for row in rows)

    event.listen(conn, "before_cursor_execute", explain)
    run(conn)
    return "\n".join(found)
