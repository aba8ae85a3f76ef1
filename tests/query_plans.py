"""How an engine carries out what a store asks of it: whether it goes by an index."""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, event

_EXPLAIN = {"sqlite": ("EXPLAIN QUERY PLAN ", 3), "postgresql": ("EXPLAIN ", 0)}
"""By engine: what is put before a statement, and the column of the answer that tells."""


def plans(conn: Connection, run: Callable[[Connection], Any]) -> str:
    """How the engine carries out the statements of a function."""
    found: list[str] = []
    before, column = _EXPLAIN[conn.dialect.name]

    def explain(_: Any, __: Any, statement: str, parameters: Any, *___: Any) -> None:
        if not statement.startswith("EXPLAIN"):
            rows = conn.exec_driver_sql(before + statement, parameters)
            found.extend(row[column] for row in rows)

    event.listen(conn, "before_cursor_execute", explain)
    try:
        run(conn)
    finally:
        event.remove(conn, "before_cursor_execute", explain)
    return "\n".join(found)
