"""Databases that have a service's schema: made by its migrations once, copied from then on.

A migration takes longer than most tests with a database: what they begin with is a copy of what a
service finds after its first start. What is about migrations begins with an empty database.
"""

import asyncio
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from postgresql import PostgresqlServer

from gridlane_kit.sqlite import sqlite_url
from gridlane_server.schema import migrate_service


class Schemas:
    """The run's databases to copy from.

    Parameters:
        folder: for SQLite's.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._files: dict[str, Path] = {}
        self._on_postgresql: dict[tuple[PostgresqlServer, str], str] = {}

    def copy_file(self, service: str, target: Path) -> None:
        """Makes an SQLite database with the schema of a service ("transfer")."""
        made = self._files.get(service)
        if made is None:
            made = self._folder / f"{service}.sqlite"
            _migrate(service, sqlite_url(made))
            self._files[service] = made
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(made, target)

    def copy_on(self, server: PostgresqlServer, service: str) -> str:
        """Makes a database with the schema of a service; returns its URL."""
        made = self._on_postgresql.get((server, service))
        if made is None:
            made = server.new_database()
            _migrate(service, made)
            self._on_postgresql[server, service] = made
        return server.new_database(like=made)


def _migrate(service: str, url: str) -> None:
    # In a thread: a test's own loop may be running.
    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, migrate_service(service, url)).result()
