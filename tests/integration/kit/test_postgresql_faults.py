"""PostgreSQL servers that die, stay away, hang, stand by or are full.

Whatever happens, what was answered is there once, what was refused is worth a retry, and the
service goes on by itself when the database does. Commits without an answer are
`test_postgresql_commits`'.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from integration.kit.broken_postgresql import (
    ITEM,
    Put,
    adding,
    become_standby,
    behind_proxy,
    is_worth_a_retry,
    items,
    opened,
)
from postgresql import PostgresqlServer
from sqlalchemy import Connection, make_url
from sqlalchemy.exc import IntegrityError

from gridlane.ids import uuid7
from gridlane_kit import postgresql
from gridlane_kit.database import insert_rows
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.grouped_read import GroupedRead


async def test_a_database_that_stays_away_is_told_and_comes_back_by_itself(
    own_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_TRY_FOR_S", 0.3)
    monkeypatch.setattr(postgresql, "_ASK_FOR_S", 0.3)
    async with opened(own_server.new_database()) as db, adding(db) as kind:
        await kind("before")
        await asyncio.to_thread(own_server.crash)
        async with asyncio.timeout(5):
            calls = [kind("a"), kind("b"), db.read(items), db.read(items)]
            outcomes = await asyncio.gather(*calls, return_exceptions=True)
        assert all(isinstance(o, Exception) and is_worth_a_retry(o) for o in outcomes)
        await asyncio.to_thread(own_server.start)
        assert await kind("a") == "items/a"
        assert set(await db.read(items)) == {"before", "a"}


async def test_a_restart_under_load_loses_nothing_and_makes_nothing_twice(
    own_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Writers and readers go on as callers do: whoever is refused comes again."""
    monkeypatch.setattr(postgresql, "_TRY_FOR_S", 0.2)
    url = own_server.new_database()
    over = asyncio.Event()
    refused = 0

    async def persist(call: Callable[[], Awaitable[object]]) -> object:
        nonlocal refused
        while True:
            try:
                return await call()
            except GridlaneError as error:
                if not is_worth_a_retry(error):
                    raise
                refused += 1
                await asyncio.sleep(0.05)

    async with opened(url) as db, adding(db) as kind:
        read: GroupedRead[str, int] = GroupedRead(
            db, lambda conn, uids: {uid: 1 for uid in uids if uid in items(conn)}
        )
        acknowledged: list[str] = []

        async def writer() -> None:
            while not over.is_set():
                uid = uuid7()
                assert await persist(lambda uid=uid: kind(uid)) == f"items/{uid}"  # type: ignore[misc]
                acknowledged.append(uid)
                assert await persist(lambda uid=uid: read.get(uid)) == 1  # type: ignore[misc]

        async def reader() -> None:
            # Unlike the writers, it waits for no answer to a commit: it is refused meanwhile.
            while not over.is_set():
                await persist(lambda: db.read(items))
                await asyncio.sleep(0.01)

        tasks = [asyncio.create_task(work()) for work in (*[writer] * 16, reader)]
        await asyncio.sleep(0.2)
        before = len(acknowledged)
        await asyncio.to_thread(own_server.restart, 0.3)
        after = len(acknowledged)
        async with asyncio.timeout(10):
            while len(acknowledged) < after + 32:
                await asyncio.sleep(0.02)
        over.set()
        await asyncio.gather(*tasks)
        assert before
        assert refused
        # As many rows as answers: nothing lost, and nothing that nobody was told of.
        assert await db.read(items) == dict.fromkeys(acknowledged, 1)


async def test_a_hanging_database_is_told_in_time_and_piles_up_no_connections(
    own_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_TRY_FOR_S", 0.3)
    monkeypatch.setattr(postgresql, "_ASK_FOR_S", 0.3)
    url = own_server.new_database()
    limits = {"command_timeout": "0.5", "timeout": "0.5", "pool_size": "4"}
    async with behind_proxy(url, own_server, **limits) as (db, proxy), adding(db) as kind:
        await kind("before")
        await asyncio.gather(*(db.read(items) for _ in range(8)))
        stopped = own_server.backends
        assert stopped
        for backend in stopped:
            backend.send_signal(signal.SIGSTOP)
        proxy.connections = 0
        try:
            calls = [*(kind(f"{n}") for n in range(8)), *(db.read(items) for _ in range(40))]
            async with asyncio.timeout(20):
                began = asyncio.get_running_loop().time()
                outcomes = await asyncio.gather(*calls, return_exceptions=True)
                took = asyncio.get_running_loop().time() - began
        finally:
            for backend in stopped:
                backend.send_signal(signal.SIGCONT)
        bad = [o for o in outcomes if isinstance(o, Exception) and not is_worth_a_retry(o)]
        assert not bad
        assert took < 5
        # Those of the pool that were replaced, and as many that asked for a cancel.
        assert proxy.connections <= 3 * 4
        assert await kind("after") == "items/after"
        assert {"before", "after"} <= set(await db.read(items))


async def test_a_standby_is_unavailable_for_writes_until_it_is_promoted(
    own_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reads go on meanwhile."""
    monkeypatch.setattr(postgresql, "_TRY_FOR_S", 0.3)
    async with opened(own_server.new_database()) as db:
        await db.write(Put("before"))
        await asyncio.to_thread(become_standby, own_server)
        assert await db.read(items) == {"before": 1}
        with pytest.raises(GridlaneError) as caught:
            await db.write(Put("after"))
        assert is_worth_a_retry(caught.value)
        await asyncio.to_thread(own_server.sql, "SELECT pg_promote()")
        await db.write(Put("after"))


async def test_a_process_frozen_in_a_transaction_keeps_no_row_from_the_others(
    own_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {**postgresql._SERVER_SETTINGS, postgresql._IDLE_MS: "300"}
    monkeypatch.setattr(postgresql, "_SERVER_SETTINGS", settings)
    url = own_server.new_database()
    frozen, awake = threading.Event(), threading.Event()
    runs = 0

    def put_and_freeze(conn: Connection) -> None:
        nonlocal runs
        runs += 1
        insert_rows(conn, ITEM, [{"uid": "a", "size": 1}])
        frozen.set()
        assert awake.wait(20)

    async def freeze() -> None:
        # A loop of its own, which stands still with the transaction as the whole process would.
        async with opened(url) as db:
            await db.write(put_and_freeze)

    async with opened(url) as db:
        freezing = asyncio.create_task(asyncio.to_thread(asyncio.run, freeze()))
        try:
            assert await asyncio.to_thread(frozen.wait, 20)
            async with asyncio.timeout(10):
                await db.write(Put("a"))
        finally:
            awake.set()
        # It wakes, runs its transaction again, and meets the other's row.
        with pytest.raises(IntegrityError):
            await freezing
        assert runs == 2
        assert await db.read(items) == {"a": 1}


@pytest.fixture
def small_database(own_server: PostgresqlServer) -> Iterator[tuple[str, Path]]:
    """A database on a file system of 16 MiB, and that."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    folder = Path(tempfile.mkdtemp(prefix="gridlane-small-"))
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0777", "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounted.returncode != 0:
        pytest.skip(f"no tmpfs can be mounted here: {mounted.stderr.strip()}")
    folder.parent.chmod(folder.parent.stat().st_mode | 0o1)
    space = folder / "space"
    space.mkdir()
    owner = own_server.data.stat()
    os.chown(space, owner.st_uid, owner.st_gid)
    url = own_server.new_database()
    name = make_url(url).database
    own_server.sql(f"CREATE TABLESPACE small LOCATION '{space}'")
    own_server.sql(f"ALTER DATABASE {name} SET TABLESPACE small")
    yield url, folder
    own_server.sql(f"DROP DATABASE {name} WITH (FORCE)")
    own_server.sql("DROP TABLESPACE small")
    subprocess.run(["umount", str(folder)], check=True)
    shutil.rmtree(folder)


def fill(ballast: Path) -> None:
    """Write until the disk is full."""
    with ballast.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(bytes(4096))


async def test_a_full_disk_is_told_and_with_room_it_goes_on(
    small_database: tuple[str, Path],
) -> None:
    url, folder = small_database
    async with opened(url) as db, adding(db) as kind:
        await kind("before")
        ballast = folder / "ballast"
        fill(ballast)
        outcomes = await asyncio.gather(
            *(kind.many([uuid7() for _ in range(500)]) for _ in range(8)), return_exceptions=True
        )
        refused = [outcome for outcome in outcomes if isinstance(outcome, GridlaneError)]
        assert refused
        assert {error.reason for error in refused} == {ErrorReason.NO_SPACE}
        assert all(error.details for error in refused)
        written = 500 * sum(isinstance(outcome, list) for outcome in outcomes)
        assert len(await db.read(items)) == 1 + written
        ballast.unlink()
        assert await kind("after") == "items/after"
