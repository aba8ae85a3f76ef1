"""PostgreSQL that breaks: commits without an answer, servers that die, hang or are full.

Whatever happens, what was answered is there once, what was refused is worth a retry, and the
service goes on by itself when the database does.
"""

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from postgresql import PostgresqlServer
from postgresql_proxy import (
    AtCommit,
    Link,
    Proxy,
    cut_after,
    cut_before,
    proxied,
    swallow,
    swallow_answer,
)
from sqlalchemy import Column, Connection, Integer, String, Table, make_url, select, text

from gridlane.ids import uuid7
from gridlane_kit import postgresql
from gridlane_kit.database import Database, insert_rows, service_metadata
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.group_commit import GroupCommit, WriteKind
from gridlane_kit.grouped_read import GroupedRead

OLD = "0188d2d0-0000-7000-8000-000000000000"
METADATA = service_metadata()
ITEM = Table(
    "item",
    METADATA,
    Column("uid", String(36), primary_key=True),
    Column("size", Integer, nullable=False),
)


@pytest.fixture
def url(postgresql_server: PostgresqlServer) -> str:
    return postgresql_server.new_database()


@pytest.fixture
async def through(
    url: str, postgresql_server: PostgresqlServer
) -> AsyncIterator[tuple[Database, Proxy]]:
    """A database behind a proxy, which gives up a statement after a moment."""
    async with behind_proxy(url, postgresql_server, command_timeout="0.7") as both:
        yield both


@pytest.fixture(scope="module")
def own_server() -> Iterator[PostgresqlServer]:
    """A server that tests may kill; it runs again when they are done."""
    server = PostgresqlServer()
    yield server
    server.close()


async def open_database(url: str, **parameters: str) -> Database:
    full = make_url(url).update_query_dict(parameters).render_as_string(hide_password=False)
    return await Database.open(full, metadata=METADATA, migrations=None, migrate=True)


@asynccontextmanager
async def opened(url: str, **parameters: str) -> AsyncIterator[Database]:
    db = await open_database(url, **parameters)
    yield db
    await db.close()


@asynccontextmanager
async def behind_proxy(
    url: str, server: PostgresqlServer, **parameters: str
) -> AsyncIterator[tuple[Database, Proxy]]:
    async with (
        proxied(url, server.socket) as (proxied_url, proxy),
        opened(proxied_url, **parameters) as db,
    ):
        yield db, proxy


class Put:
    """A write, and how often it was run."""

    def __init__(self, uid: str) -> None:
        self.uid = uid
        self.runs = 0
        self.transactions: list[int] = []

    def __call__(self, conn: Connection) -> str:
        self.runs += 1
        insert_rows(conn, ITEM, [{"uid": self.uid, "size": self.runs}])
        number = conn.execute(text("SELECT pg_current_xact_id()::text")).scalar_one()
        self.transactions.append(int(number))
        return f"run {self.runs}"


def items(conn: Connection) -> dict[str, int]:
    return {row.uid: row.size for row in conn.execute(select(ITEM))}


def add(conn: Connection, uids: Sequence[str]) -> list[str]:
    """Inserts what is not there, as a retry with the same request id does."""
    known = set(conn.scalars(select(ITEM.c.uid).where(ITEM.c.uid.in_(uids))))
    if "bad" in uids:
        conn.execute(text("SELECT 1/0"))
    insert_rows(conn, ITEM, [{"uid": uid, "size": 1} for uid in uids if uid not in known])
    return [f"items/{uid}" for uid in uids]


@asynccontextmanager
async def adding(db: Database) -> AsyncIterator[WriteKind[str, str]]:
    """A group commit of `add`."""
    group = GroupCommit(db)
    kind = group.kind("items.add", add, key=str)
    await group.start()
    yield kind
    await group.drain()


def is_worth_a_retry(error: BaseException) -> bool:
    return (
        isinstance(error, GridlaneError)
        and error.reason is ErrorReason.STORE_UNAVAILABLE
        and bool(error.details)
    )


CUTS = [(cut_before, 2), (cut_after, 1), (swallow, 2), (swallow_answer, 1)]


@pytest.mark.parametrize(("cut", "runs"), CUTS, ids=[cut.__name__ for cut, _ in CUTS])
async def test_a_commit_without_an_answer_is_done_once(
    through: tuple[Database, Proxy], cut: AtCommit, runs: int
) -> None:
    """What was committed is answered and not run again; what was not is."""
    db, proxy = through
    proxy.at_commit.append(cut)
    put = Put("a")
    assert await db.write(put) == f"run {runs}"
    assert await db.read(items) == {"a": runs}


@pytest.mark.parametrize("cut", [cut for cut, _ in CUTS], ids=[cut.__name__ for cut, _ in CUTS])
async def test_every_caller_of_a_group_is_answered_once(
    through: tuple[Database, Proxy], cut: AtCommit
) -> None:
    db, proxy = through
    async with adding(db) as kind:
        assert await kind("first") == "items/first"
        proxy.at_commit.append(cut)
        uids = [f"{number:03d}" for number in range(60)]
        assert await asyncio.gather(*map(kind, uids)) == [f"items/{uid}" for uid in uids]
    assert not proxy.at_commit
    assert set(await db.read(items)) == {"first", *uids}


async def test_a_bad_entry_is_isolated_through_a_lost_connection(
    through: tuple[Database, Proxy],
) -> None:
    db, proxy = through
    async with adding(db) as kind:
        proxy.at_commit.append(cut_before)
        outcomes = await asyncio.gather(*map(kind, ["a", "bad", "c"]), return_exceptions=True)
    assert [outcomes[0], outcomes[2]] == ["items/a", "items/c"]
    assert "division by zero" in str(outcomes[1])
    assert set(await db.read(items)) == {"a", "c"}


async def test_a_connection_lost_while_a_bad_entry_is_isolated_fails_nobody_else(
    through: tuple[Database, Proxy],
) -> None:
    db, proxy = through
    runs = 0

    def apply(conn: Connection, uids: Sequence[str]) -> list[str]:
        nonlocal runs
        runs += 1
        if runs == 3:  # of the second attempt: within a savepoint
            proxy.cut_all()
        return add(conn, uids)

    group = GroupCommit(db)
    kind = group.kind("items.add", apply, key=str)
    await group.start()
    outcomes = await asyncio.gather(*map(kind, ["a", "bad", "c"]), return_exceptions=True)
    await group.drain()
    assert [outcomes[0], outcomes[2]] == ["items/a", "items/c"]
    assert "division by zero" in str(outcomes[1])
    assert set(await db.read(items)) == {"a", "c"}


async def test_connections_cut_at_any_statement_are_replaced(
    through: tuple[Database, Proxy],
) -> None:
    db, proxy = through
    await db.write(Put("before"))
    runs = 0

    def cut_first(conn: Connection) -> dict[str, int]:
        nonlocal runs
        runs += 1
        if runs in {1, 3}:
            proxy.cut_all()
        found = items(conn)
        if runs in {2, 4}:
            proxy.cut_all()
            items(conn)
        return found

    assert await db.read(cut_first) == {"before": 1}
    assert runs == 5
    runs = 0
    assert await db.write(cut_first) == {"before": 1}
    assert runs == 5


async def test_what_follows_a_transaction_that_began_too_late_is_durable(
    url: str, postgresql_server: PostgresqlServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer to BEGIN comes after it was given up: the connection has a transaction open."""
    monkeypatch.setattr(postgresql, "_TRY_FOR_S", 0.1)

    async def answer_late(link: Link, begin: bytes) -> None:
        link.hold()
        link.send(begin)
        asyncio.get_running_loop().call_later(0.7, link.release)

    limits = {"command_timeout": "0.5", "pool_size": "1"}
    async with opened(url) as direct, behind_proxy(url, postgresql_server, **limits) as (db, proxy):
        await db.write(Put("before"))
        proxy.at_begin.append(answer_late)
        with pytest.raises(GridlaneError) as caught:
            await db.write(Put("given up"))
        assert is_worth_a_retry(caught.value)
        await asyncio.sleep(0.3)
        await db.write(Put("after"))
        assert await direct.read(items) == {"before": 1, "after": 1}


async def test_a_commit_that_is_always_cut_off_is_given_up(
    through: tuple[Database, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_TRY_FOR_S", 0.2)
    db, proxy = through
    proxy.at_commit.extend([cut_before] * 1000)
    with pytest.raises(GridlaneError) as caught:
        await db.write(Put("a"))
    assert is_worth_a_retry(caught.value)
    proxy.at_commit.clear()
    assert await db.read(items) == {}
    await db.write(Put("a"))


async def test_an_outcome_that_cannot_be_found_out_is_told_and_a_retry_finds_the_row(
    through: tuple[Database, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_ASK_FOR_S", 0.3)
    db, proxy = through

    async def cut_and_stay_away(link: Link, commit: bytes) -> None:
        proxy.refuses = True
        await cut_after(link, commit)

    async with adding(db) as kind:
        proxy.at_commit.append(cut_and_stay_away)
        outcomes = await asyncio.gather(*map(kind, ["a", "b"]), return_exceptions=True)
        assert all(isinstance(o, Exception) and is_worth_a_retry(o) for o in outcomes)
        proxy.refuses = False
        assert await asyncio.gather(*map(kind, ["a", "b"])) == ["items/a", "items/b"]
    assert await db.read(items) == {"a": 1, "b": 1}


async def test_a_caller_that_leaves_while_the_outcome_is_asked_changes_nothing(
    through: tuple[Database, Proxy],
) -> None:
    db, proxy = through
    proxy.at_commit.append(cut_before)
    put = Put("a")
    caller = asyncio.create_task(db.write(put))
    async with asyncio.timeout(5):
        while proxy.at_commit:
            await asyncio.sleep(0.001)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    async with asyncio.timeout(5):
        while await db.read(items) != {"a": 2}:
            await asyncio.sleep(0.01)


async def test_old_marks_of_commits_are_forgotten_and_young_ones_kept(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_FORGET_MARKS_S", 0.05)
    count = text("SELECT count(*) FROM commit_mark")
    mark = text("INSERT INTO commit_mark VALUES (:id)")
    async with opened(url) as db:
        await db.write(Put("young"))
        await db.write(lambda conn: conn.execute(mark, {"id": OLD}))
        async with asyncio.timeout(5):
            while await db.read(lambda conn: conn.scalar(count)) != 2:
                await asyncio.sleep(0.02)
        await db.write(lambda conn: conn.execute(select(ITEM)).all())
        assert await db.read(lambda conn: conn.scalar(count)) == 2, "of what changed nothing"


async def test_a_role_without_any_privilege_can_ask_for_the_outcome(
    url: str, postgresql_server: PostgresqlServer
) -> None:
    role = f"plain_{make_url(url).database}"
    postgresql_server.sql(f"CREATE ROLE {role} LOGIN")
    postgresql_server.sql(f"ALTER DATABASE {make_url(url).database} OWNER TO {role}")
    plain = make_url(url).set(username=role).render_as_string()
    async with behind_proxy(plain, postgresql_server, command_timeout="0.3") as (db, proxy):
        for cut, _ in CUTS:
            proxy.at_commit.append(cut)
            await db.write(Put(cut.__name__))
        assert len(await db.read(items)) == len(CUTS)


@pytest.mark.parametrize("reached", [True, False])
async def test_a_server_killed_at_the_commit_tells_the_outcome_when_it_is_back(
    own_server: PostgresqlServer, reached: bool
) -> None:
    url = own_server.new_database()
    async with behind_proxy(url, own_server) as (db, proxy):

        async def kill(link: Link, commit: bytes) -> None:
            link.mute()
            if reached:
                link.send(commit)
                await link.answered()
            await asyncio.to_thread(own_server.crash)
            link.cut()
            await asyncio.to_thread(own_server.start)

        proxy.at_commit.append(kill)
        put = Put("a")
        runs = 1 if reached else 2
        assert await db.write(put) == f"run {runs}"
        assert await db.read(items) == {"a": runs}


async def test_a_transaction_lost_in_a_crash_is_run_again_though_others_were_committed_since(
    own_server: PostgresqlServer,
) -> None:
    """The others even bear its number: PostgreSQL gives ids again that did not reach the log."""
    url = own_server.new_database()
    others: list[int] = []
    put = Put("ours")
    async with behind_proxy(url, own_server) as (db, proxy):

        async def kill(link: Link, _commit: bytes) -> None:
            link.mute()
            await asyncio.to_thread(own_server.restart)
            async with opened(url) as direct:
                while not others or others[-1] < put.transactions[0]:
                    other = Put(f"other {len(others)}")
                    await direct.write(other)
                    others.extend(other.transactions)
            link.cut()

        proxy.at_commit.append(kill)
        assert await db.write(put) == "run 2"
        assert "ours" in await db.read(items)
    assert put.transactions[0] in others, "the number was not given again: nothing was shown"


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

        writers = [asyncio.create_task(writer()) for _ in range(16)]
        await asyncio.sleep(0.2)
        before = len(acknowledged)
        await asyncio.to_thread(own_server.restart, 0.3)
        after = len(acknowledged)
        async with asyncio.timeout(10):
            while len(acknowledged) < after + 32:
                await asyncio.sleep(0.02)
        over.set()
        await asyncio.gather(*writers)
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


def become_standby(server: PostgresqlServer) -> None:
    """Crash, and come back as a standby that follows nobody."""
    server.crash()
    (server.data / "standby.signal").touch()
    server.start()


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


@pytest.mark.parametrize("reached", [True, False])
async def test_a_promoted_standby_tells_whether_it_has_the_commit(
    own_server: PostgresqlServer, reached: bool
) -> None:
    url = own_server.new_database()
    async with behind_proxy(url, own_server) as (db, proxy):

        async def fail_over(link: Link, commit: bytes) -> None:
            link.mute()
            if reached:
                link.send(commit)
                await link.answered()
            await asyncio.to_thread(become_standby, own_server)
            await asyncio.to_thread(own_server.sql, "SELECT pg_promote()")
            link.cut()

        proxy.at_commit.append(fail_over)
        runs = 1 if reached else 2
        assert await db.write(Put("a")) == f"run {runs}"
        assert await db.read(items) == {"a": runs}


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
