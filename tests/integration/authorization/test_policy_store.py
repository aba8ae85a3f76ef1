"""The policy's revisions and changes, as they are stored; on each engine."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import func, select

from gridlane_authorization import store
from gridlane_kit.database import Database
from gridlane_kit.policy import Binding, Policy, Role, WorkAction
from gridlane_kit.policy_messages import change_of

ISSUER = "https://issuer.test/"
ADMIN = Binding(ISSUER, "ada", Role.ADMIN)
SUBMITTER = Binding(ISSUER, "ada", Role.SUBMITTER, "local")


@pytest.fixture
async def db(database_url: str) -> AsyncIterator[Database]:
    database = await Database.open(
        database_url, metadata=store.METADATA, migrations=store.MIGRATIONS, migrate=True
    )
    await database.write(lambda c: store.open_policy(c, jobs_vo_readable=True, now_us=1))
    yield database
    await database.close()


async def change(db: Database, **given: Any) -> int:
    return await db.write(lambda conn: store.change_policy(conn, now_us=2, **given))


async def stored(db: Database) -> Policy:
    return (await db.read(store.read_policy)).policy


async def replayed(db: Database, after: Policy) -> Policy:
    """The policy that a follower has who had that one and is told the changes."""
    last = (await db.read(store.read_state)).revision
    changes = await db.read(lambda conn: store.read_changes(conn, after.revision, last))
    assert changes is not None
    for message in changes:
        after = after.changed(change_of(message))
    return after


def same(one: Policy, other: Policy) -> bool:
    return (one.revision, set(one.bindings), one.vos, one.jobs_vo_readable) == (
        other.revision,
        set(other.bindings),
        other.vos,
        other.jobs_vo_readable,
    )


async def test_who_replays_the_changes_has_the_stored_policy(db: Database) -> None:
    begun = await stored(db)
    await change(db, added=[ADMIN, SUBMITTER], added_vos=["local", "cms"])
    between = await stored(db)
    await change(db, removed=[ADMIN], added=[Binding(ISSUER, "eve", Role.VETOED)])
    await change(db, removed_vos=["cms"], jobs_vo_readable=False)
    now = await stored(db)
    assert (now.revision, now.vos, now.jobs_vo_readable) == (3, frozenset({"local"}), False)
    assert same(await replayed(db, begun), now)
    assert same(await replayed(db, between), now)


async def test_a_binding_that_differs_only_in_its_end_takes_the_place_of_the_other(
    db: Database,
) -> None:
    begun = await stored(db)
    await change(db, added=[ADMIN])
    ending = Binding(ISSUER, "ada", Role.ADMIN, expires_us=1_700_000_000_000_000)
    await change(db, added=[ending])
    assert (await stored(db)).bindings == (ending,)
    assert same(await replayed(db, begun), await stored(db))


async def test_groups_and_what_vetoes_do_to_work_are_kept(db: Database) -> None:
    begun = await stored(db)
    groups = [
        Binding("", "", Role.SUBMITTER, "local", group=group) for group in ("/local/a", "/local/b")
    ]
    veto = Binding(
        ISSUER,
        "eve",
        Role.VETOED,
        queued_work=WorkAction.CANCEL,
        running_work=WorkAction.HOLD,
    )
    await change(db, added=[ADMIN, *groups, veto])
    assert set((await stored(db)).bindings) == {ADMIN, *groups, veto}
    milder = replace(veto, queued_work=WorkAction.KEEP)
    before = await change(db, added=[milder], removed=groups[:1])
    assert set((await stored(db)).bindings) == {ADMIN, groups[1], milder}
    assert same(await replayed(db, begun), await stored(db))
    assert await change(db, added=[milder, groups[1]]) == before


@pytest.mark.parametrize(
    "nothing",
    [
        {"added": [ADMIN]},
        {"removed": [SUBMITTER]},
        {"added_vos": ["local"]},
        {"removed_vos": ["cms"]},
        {"jobs_vo_readable": True},
        {},
    ],
)
async def test_what_is_so_already_makes_no_revision(db: Database, nothing: dict[str, Any]) -> None:
    before = await change(db, added=[ADMIN], added_vos=["local"])
    assert await change(db, **nothing) == before
    assert (await stored(db)).revision == before


async def test_a_change_that_fails_leaves_nothing(db: Database) -> None:
    before = await stored(db)

    def fail(conn: Any) -> None:
        store.change_policy(conn, added=[ADMIN], added_vos=["local"], now_us=2)
        raise RuntimeError

    with pytest.raises(RuntimeError):
        await db.write(fail)
    assert same(await stored(db), before)


async def test_writers_at_once_make_revisions_without_a_gap(db: Database) -> None:
    begun = await stored(db)
    subjects = [f"user-{n}" for n in range(20)]
    revisions = await asyncio.gather(
        *(change(db, added=[Binding(ISSUER, subject, Role.VETOED)]) for subject in subjects)
    )
    assert sorted(revisions) == list(range(1, 21))
    assert same(await replayed(db, begun), await stored(db))


async def test_only_the_last_changes_are_kept(
    db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.policy, "KEPT_CHANGES", 3)
    for n in range(5):
        await change(db, added=[Binding(ISSUER, f"user-{n}", Role.VETOED)])
    table = store.METADATA.tables["policy_change"]
    assert await db.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar()) == 3
    assert await db.read(lambda conn: store.read_changes(conn, 1, 5)) is None
    kept = await db.read(lambda conn: store.read_changes(conn, 2, 5))
    assert kept is not None
    assert [message.revision for message in kept] == [3, 4, 5]


async def test_a_setting_that_differs_at_a_start_is_a_change_like_any_other(db: Database) -> None:
    begun = await stored(db)
    await db.write(lambda c: store.open_policy(c, jobs_vo_readable=False, now_us=3))
    now = await stored(db)
    assert (now.revision, now.jobs_vo_readable) == (begun.revision + 1, False)
    assert same(await replayed(db, begun), now)
    await db.write(lambda c: store.open_policy(c, jobs_vo_readable=False, now_us=4))
    assert (await stored(db)).revision == now.revision


async def test_a_policy_of_the_version_before_goes_on_under_an_epoch(db: Database) -> None:
    """Its revision counted, its changes were not kept."""
    state = store.METADATA.tables["policy_state"]
    old = state.update().values(revision=7, epoch=None, jobs_vo_readable=None)
    await db.write(lambda c: c.execute(old))
    await db.write(lambda c: store.open_policy(c, jobs_vo_readable=True, now_us=3))
    opened = await db.read(store.read_policy)
    assert opened.epoch
    assert (opened.policy.revision, opened.policy.jobs_vo_readable) == (8, True)
