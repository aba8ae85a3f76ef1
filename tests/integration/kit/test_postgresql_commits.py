"""Commits without an answer: the connection is cut, the server dies or another takes its place.

What was committed is answered and not run again, what was not is; and what cannot be found out is
told as worth a retry.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest
from integration.kit.broken_postgresql import (
    ITEM,
    Put,
    add,
    adding,
    become_standby,
    behind_proxy,
    is_worth_a_retry,
    items,
    opened,
)
from postgresql import PostgresqlServer
from postgresql_proxy import (
    AtCommit,
    Link,
    Proxy,
    cut_after,
    cut_before,
    swallow,
    swallow_answer,
)
from sqlalchemy import Connection, make_url, select, text

from gridlane_kit import postgresql
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.group_commit import GroupCommit

OLD = "0188d2d0-0000-7000-8000-000000000000"


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
