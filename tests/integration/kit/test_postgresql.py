"""What is particular to the engine PostgreSQL: isolation, conflicts, the pool, what is refused."""

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path

import pytest
from postgresql import PostgresqlServer
from sqlalchemy import (
    Column,
    Connection,
    Integer,
    String,
    Table,
    bindparam,
    func,
    insert,
    make_url,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError

from gridlane.ids import uuid7
from gridlane_kit import postgresql
from gridlane_kit.database import (
    Database,
    DatabaseUnusableError,
    insert_rows,
    rows_by_key,
    run_kept,
    service_metadata,
    turn_table,
)
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.group_commit import GroupCommit, WriteKind
from gridlane_kit.request_ids import New, Replay, RequestKey, claim, remember, request_id_table

METADATA = service_metadata()
ACCOUNT = Table(
    "account",
    METADATA,
    Column("name", String(36), primary_key=True),
    Column("balance", Integer, nullable=False),
)
REQUEST_ID = request_id_table(METADATA)
TURN = turn_table(METADATA)
RULE_CHILD = Path(__file__).parent / "rule_child.py"

Open = Callable[..., Awaitable[Database]]


@pytest.fixture
def engine() -> str:
    return "postgresql"


@pytest.fixture
async def open_it(database_url: str) -> AsyncIterator[Open]:
    """Opens the test's database, with parameters of the URL; closed at the end."""
    opened: list[Database] = []

    async def open_with(**parameters: str) -> Database:
        url = make_url(database_url).update_query_dict(parameters)
        db = await Database.open(
            url.render_as_string(hide_password=False),
            metadata=METADATA,
            migrations=None,
            migrate=True,
        )
        opened.append(db)
        return db

    yield open_with
    for db in opened:
        await db.close()


def put(name: str, balance: int = 0) -> Callable[[Connection], None]:
    return lambda conn: insert_rows(conn, ACCOUNT, [{"name": name, "balance": balance}])


def balance(name: str) -> Callable[[Connection], int]:
    statement = select(ACCOUNT.c.balance).where(ACCOUNT.c.name == name)
    return lambda conn: conn.execute(statement).scalar_one()


def add_to(name: str, amount: int) -> Callable[[Connection], None]:
    """Reads and writes in two statements, which only isolation holds together."""

    def fn(conn: Connection) -> None:
        now = balance(name)(conn)
        conn.execute(update(ACCOUNT).where(ACCOUNT.c.name == name).values(balance=now + amount))

    return fn


async def test_writes_are_serializable_and_reads_one_snapshot(open_it: Open) -> None:
    db = await open_it()

    def settings(conn: Connection) -> tuple[str | None, ...]:
        names = ("transaction_isolation", "transaction_read_only", "synchronous_commit")
        return tuple(conn.execute(text(f"SHOW {name}")).scalar() for name in names)

    assert await db.write(settings) == ("serializable", "off", "on")
    assert await db.read(settings) == ("repeatable read", "on", "on")


async def test_writers_of_one_row_all_count(open_it: Open) -> None:
    db = await open_it()
    await db.write(put("counter"))
    await asyncio.gather(*(db.write(add_to("counter", 1)) for _ in range(40)))
    assert await db.read(balance("counter")) == 40


async def test_of_those_that_take_turns_none_is_run_again(open_it: Open) -> None:
    one, other = await open_it(), await open_it()
    await one.write(put("counter"))
    runs: list[str | None] = []

    def add(conn: Connection) -> None:
        runs.append(conn.execute(text("SHOW transaction_isolation")).scalar())
        add_to("counter", 1)(conn)

    await asyncio.gather(*(db.write(add, turn=TURN) for db in [one, other] * 20))
    assert await one.read(balance("counter")) == 40
    assert runs == ["serializable"] * 40


async def test_others_do_not_wait_for_a_turn(open_it: Open) -> None:
    one, other = await open_it(), await open_it()
    begun = asyncio.Event()
    loop = asyncio.get_running_loop()

    def last_long(conn: Connection) -> None:
        put("slow")(conn)
        loop.call_soon_threadsafe(begun.set)
        conn.execute(text("SELECT pg_sleep(1)"))

    turn = asyncio.create_task(one.write(last_long, turn=TURN))
    await begun.wait()
    await other.write(put("quick"))
    assert await other.read(balance("quick")) == 0
    assert not turn.done()
    await turn


async def test_writes_that_are_done_in_turn_are_committed_at_their_first_run(
    open_it: Open,
) -> None:
    dbs = [await open_it(), await open_it()]
    await dbs[0].write(put("counter"))
    runs = 0

    def apply(conn: Connection, entries: Sequence[int]) -> list[None]:
        nonlocal runs
        runs += 1
        add_to("counter", sum(entries))(conn)
        return [None] * len(entries)

    groups = [GroupCommit(db, turn=TURN) for db in dbs]
    adds = [group.kind("add", apply, key=int, in_turn=True) for group in groups]
    for group in groups:
        await group.start()

    async def add_again_and_again(add: WriteKind[int, None]) -> None:
        for _ in range(25):
            await add(1)

    await asyncio.gather(*map(add_again_and_again, adds))
    for group in groups:
        await group.drain()
    assert await dbs[0].read(balance("counter")) == 50
    assert runs == 50


async def test_a_look_for_many_keys_locks_no_small_table_as_a_whole(open_it: Open) -> None:
    """By default it reads sequentially, and then it meets every other writer of the table."""
    db = await open_it()
    names = [f"account-{number}" for number in range(24)]
    whole = text(
        "SELECT count(*) FROM pg_locks WHERE mode = 'SIReadLock' AND page IS NULL"
        " AND relation = 'account'::regclass"
    )

    def look(conn: Connection) -> int:
        rows_by_key(conn, [ACCOUNT.c.name], ACCOUNT.c.name, names)
        return conn.execute(whole).scalar_one()

    rows = [{"name": name, "balance": 0} for name in names]
    await db.write(lambda conn: insert_rows(conn, ACCOUNT, rows))
    assert await db.write(look) == 0


@pytest.mark.parametrize("isolation", ["SERIALIZABLE", "READ COMMITTED"])
def test_a_rule_over_rows_holds_for_writers_of_two_processes(
    postgresql_server: PostgresqlServer, isolation: str
) -> None:
    """Each of 16 writers looks at all rows and writes one. With less isolation the rule breaks."""
    url = postgresql_server.new_database()
    asyncio.run(fill(url))
    command = [sys.executable, str(RULE_CHILD), url, isolation]
    children = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for child in children:
        assert child.stdout is not None
        assert child.stdout.readline() == "ready\n"
    for child in children:
        assert child.stdin is not None
        child.stdin.write("go\n")
        child.stdin.flush()
    spent = sum(int(child.communicate(timeout=60)[0]) for child in children)
    assert [child.returncode for child in children] == [0, 0]
    counted, left = asyncio.run(look(url))
    if isolation == "SERIALIZABLE":
        assert counted == 2 * 8 * 4
        assert left >= 0
        assert left == 20 - spent
    else:
        assert counted < 2 * 8 * 4 or left < 0


async def fill(url: str) -> None:
    db = await Database.open(url, metadata=METADATA, migrations=None, migrate=True)
    await db.write(put("counter"))
    await db.write(put("deposit", 20))
    await db.close()


async def look(url: str) -> tuple[int, int]:
    db = await Database.open(url, metadata=METADATA, migrations=None, migrate=True)
    money = select(func.sum(ACCOUNT.c.balance)).where(ACCOUNT.c.name != "counter")
    found = await db.read(balance("counter")), await db.read(lambda conn: conn.scalar(money))
    await db.close()
    return found[0], int(found[1] or 0)


async def test_a_deadlock_is_run_again(open_it: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two writers take two rows in opposite order; each has one before it asks for the other."""
    monkeypatch.setattr(postgresql, "_TRY_FOR_S", 10.0)
    db = await open_it()
    for name in ("left", "right"):
        await db.write(put(name))
    runs: list[str] = []

    def take(first: str, second: str) -> Callable[[Connection], None]:
        def fn(conn: Connection) -> None:
            runs.append(first)
            conn.execute(text("SET LOCAL deadlock_timeout = '20ms'"))
            conn.execute(update(ACCOUNT).where(ACCOUNT.c.name == first).values(balance=1))
            conn.execute(text("SELECT pg_sleep(0.1)"))
            conn.execute(update(ACCOUNT).where(ACCOUNT.c.name == second).values(balance=2))

        return fn

    await asyncio.gather(db.write(take("left", "right")), db.write(take("right", "left")))
    assert len(runs) > 2
    balances = [await db.read(balance(name)) for name in ("left", "right")]
    assert sorted(balances) == [1, 2]


async def test_two_replicas_with_one_request_make_one_resource(open_it: Open) -> None:
    """Neither sees the other's row when it looks; group commit answers both with the same."""

    def submit(conn: Connection, keys: Sequence[RequestKey]) -> list[str]:
        answers: list[str] = []
        created = []
        for key, found in zip(keys, claim(conn, REQUEST_ID, keys), strict=True):
            if isinstance(found, Replay):
                answers.append(found.resource)
            else:
                assert isinstance(found, New)
                answers.append(uuid7())
                created.append((key, answers[-1]))
        insert_rows(conn, ACCOUNT, [{"name": uid, "balance": 1} for _, uid in created])
        remember(conn, REQUEST_ID, created)
        return answers

    replicas = []
    for _ in range(2):
        group = GroupCommit(await open_it())
        replicas.append((group, group.kind("submit", submit, key=lambda key: key.request_id)))
        await group.start()
    keys = [RequestKey("iss|me", "Submit", uuid7(), "t:1") for _ in range(60)]
    answers = await asyncio.gather(
        *(asyncio.gather(*(kind(key) for _, kind in replicas)) for key in keys)
    )
    assert all(one == other for one, other in answers)
    assert len({one for one, _ in answers}) == len(keys)
    for group, _ in replicas:
        await group.drain()


async def test_a_unique_key_taken_meanwhile_is_the_stores_to_judge(open_it: Open) -> None:
    db = await open_it()
    outcomes = await asyncio.gather(
        *(db.write(put("same", n)) for n in range(8)), return_exceptions=True
    )
    assert outcomes.count(None) == 1
    assert sum(isinstance(outcome, IntegrityError) for outcome in outcomes) == 7


async def test_a_table_migrated_meanwhile_is_read_and_written_on(open_it: Open) -> None:
    """The statements that a connection has prepared are outdated; nobody notices."""
    db = await open_it(pool_size="1")
    every = text("SELECT * FROM account")
    put_it = insert(ACCOUNT).values(name=bindparam("uid"), balance=1)

    def write(conn: Connection) -> None:
        run_kept(conn, put_it, uid=uuid7())

    for _ in range(2):
        await db.write(write)
        await db.read(lambda conn: conn.execute(every).all())
    other = await open_it()
    await other.write(lambda conn: conn.execute(text("ALTER TABLE account ADD note text")))
    await other.write(
        lambda conn: conn.execute(text("ALTER TABLE account ALTER balance TYPE bigint"))
    )
    (row, *_) = await db.read(lambda conn: conn.execute(every).all())
    assert row.note is None
    await db.write(write)
    assert len(await db.read(lambda conn: conn.execute(every).all())) == 3


@pytest.mark.parametrize("setting", ["synchronous_commit"])
async def test_a_database_that_answers_before_its_disk_is_refused(
    database_url: str, open_it: Open, setting: str
) -> None:
    db = await open_it()
    name = make_url(database_url).database
    alter = f"ALTER DATABASE {name} SET {setting} = off"
    await db.write(lambda conn: conn.execute(text(alter)))
    with pytest.raises(DatabaseUnusableError, match=f"{setting} = off"):
        await open_it()


async def test_a_server_without_fsync_is_refused(
    database_url: str, postgresql_server: PostgresqlServer, open_it: Open
) -> None:
    def configure(value: str) -> None:
        postgresql_server.sql(f"ALTER SYSTEM SET fsync = {value}")
        postgresql_server.sql("SELECT pg_reload_conf()")

    configure("off")
    try:
        # The server reads it in its own time.
        async with asyncio.timeout(5):
            while postgresql_server.sql("SHOW fsync").split()[2] != "off":
                await asyncio.sleep(0.05)
        with pytest.raises(DatabaseUnusableError, match="fsync = off"):
            await open_it()
    finally:
        configure("on")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"database": "absent"}, 'database "absent" does not exist'),
        ({"username": "nobody"}, 'role "nobody" does not exist'),
    ],
)
async def test_what_the_server_refuses_says_why(
    database_url: str, change: dict[str, str], said: str
) -> None:
    url = make_url(database_url).set(**change)  # type: ignore[arg-type]
    with pytest.raises(DatabaseUnusableError, match=said):
        await Database.open(
            url.render_as_string(), metadata=METADATA, migrations=None, migrate=True
        )


async def test_a_read_only_server_is_unavailable_for_writes_and_reads_go_on(
    database_url: str, open_it: Open
) -> None:
    db = await open_it()
    await db.write(put("before"))
    name = make_url(database_url).database
    await db.write(
        lambda conn: conn.execute(
            text(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        )
    )
    # The setting is that of new connections.
    standby = await open_it()
    with pytest.raises(GridlaneError) as caught:
        await standby.write(put("after"))
    assert caught.value.reason is ErrorReason.STORE_UNAVAILABLE
    assert caught.value.details
    assert await standby.read(balance("before")) == 0


async def test_more_readers_than_connections_all_read(open_it: Open) -> None:
    db = await open_it(pool_size="2")
    await db.write(put("a", 1))
    assert await asyncio.gather(*(db.read(balance("a")) for _ in range(200))) == [1] * 200


async def test_who_gets_no_connection_is_told_in_time(
    open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_TRY_FOR_S", 0.3)
    db = await open_it(pool_size="1")
    await db.write(put("a", 1))
    sleep = text("SELECT pg_sleep(1)")
    sleeper = asyncio.create_task(db.read(lambda conn: conn.execute(sleep).scalar()))
    await asyncio.sleep(0.1)
    with pytest.raises(GridlaneError) as caught:
        await db.read(balance("a"))
    assert caught.value.reason is ErrorReason.STORE_UNAVAILABLE
    await sleeper
    assert await db.read(balance("a")) == 1


async def test_cancelled_readers_keep_no_connection(open_it: Open) -> None:
    db = await open_it(pool_size="2")
    await db.write(put("a", 1))
    sleep = text("SELECT pg_sleep(60)")
    for _ in range(6):
        readers = [
            asyncio.create_task(db.read(lambda conn: conn.execute(sleep).scalar()))
            for _ in range(3)
        ]
        await asyncio.sleep(0.03)
        for reader in readers:
            reader.cancel()
        outcomes = await asyncio.gather(*readers, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes)
    async with asyncio.timeout(3):
        assert await db.read(balance("a")) == 1


async def test_a_lock_that_nobody_gives_back_is_unavailable_in_time(
    open_it: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgresql, "_TRY_FOR_S", 0.3)
    db, other = await open_it(command_timeout="0.5"), await open_it()
    sleep = text("SELECT pg_sleep(1.8)")

    def hold(conn: Connection) -> None:
        conn.execute(text("LOCK TABLE account"))
        conn.execute(sleep)

    holder = asyncio.create_task(other.write(hold))
    await asyncio.sleep(0.1)
    with pytest.raises(GridlaneError) as caught:
        await db.write(put("a"))
    assert caught.value.reason is ErrorReason.STORE_UNAVAILABLE
    await holder
    await db.write(put("a"))
    assert await db.read(balance("a")) == 0
