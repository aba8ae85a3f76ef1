"""The files of the keys that sign tokens: whoever else writes them, cannot write them, or comes
back to what it left in them; on each engine."""

import asyncio
import json
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest
from integration.authorization.key_office import (
    ACTIVE,
    DAY_US,
    PUBLISHED,
    RETIRED,
    REVOKED,
    asking,
    eventually,
    is_active,
    listed,
    published,
    rotated,
    signs,
    signs_with,
    states,
    user,
)
from integration.authorization.policy_office import Caller, Office, office
from integration.authorization.test_upkeep import opened
from sqlalchemy import Connection, update

from gridlane.ids import uuid7
from gridlane_authorization import key_files
from gridlane_authorization.key_files import KeyFiles, SigningKeyError, rotate_key
from gridlane_authorization.store import signing_keys as rows
from gridlane_authorization.store.tables import SIGNING_KEY
from gridlane_kit.clock import now_us
from gridlane_kit.data_directory import write_secret
from gridlane_kit.tokens import new_key

_EVERY_WAY: Final[Sequence[Mapping[str, Any]]] = (
    {},
    {"revoke_present": True},
    {"seconds": 60.0},
)

pytestmark = pytest.mark.timeout(120)


async def test_where_another_program_keeps_the_public_keys_nothing_is_stored(
    database_url: str, files: KeyFiles
) -> None:
    async with office(database_url, files=KeyFiles(files.key, None)) as keyed:
        await _refused_with_the_cure(keyed)
        assert not files.staged_kids()


async def test_where_the_files_cannot_be_written_nothing_is_stored(
    keyed: Office, files: KeyFiles
) -> None:
    folder = files.key.parent
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    try:
        await _refused_with_the_cure(keyed)
    finally:
        hidden.rename(folder)
    assert not files.staged_kids()
    assert (await rotated(keyed.root)).state == ACTIVE


async def _refused_with_the_cure(keyed: Office) -> None:
    before = await states(keyed.root)
    for fields in _EVERY_WAY:
        refused = await keyed.root.refused(
            keyed.root.keys.RotateSigningKey,
            asking(**fields),
        )
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "PRECONDITION")
        assert "gridlane-server rotate-key" in refused.message
    assert await states(keyed.root) == before
    (kept, *_) = await keyed.root.entries()
    assert (kept.method.rpartition("/")[2], kept.resource) == ("RotateSigningKey", "")


async def test_a_key_that_the_command_made_is_adopted_while_the_server_runs(
    keyed: Office, files: KeyFiles
) -> None:
    (first,) = await listed(keyed.root)
    before = user(keyed)
    kid = await asyncio.to_thread(rotate_key, files, 3600.0)
    await eventually(lambda: is_active(keyed, f"signingKeys/{kid}"))
    new, old = await listed(keyed.root)
    assert (old.name, old.state) == (first.name, RETIRED)
    assert 0 <= old.expire_time.seconds - old.retire_time.seconds <= 3601
    assert await before.is_known()
    assert keyed.signer.key.kid == kid
    assert new.name == signs(files)
    await rotated(keyed.root, request_id=uuid7())
    assert len(await listed(keyed.root)) == 3


async def test_a_key_that_the_command_gave_up_is_revoked(keyed: Office, files: KeyFiles) -> None:
    await rotated(keyed.root)
    waiting = await rotated(keyed.root, 600.0)
    ada = user(keyed)
    kid = await asyncio.to_thread(rotate_key, files, 0.0)
    await eventually(lambda: _is_refused(ada))
    await eventually(lambda: signs_with(keyed, f"signingKeys/{kid}"))
    root = user(keyed, "root")
    found = await listed(root)
    assert [key.state for key in found].count(REVOKED) == 3
    assert found[0].name == f"signingKeys/{kid}"
    assert (waiting.name, REVOKED) in await states(root)
    assert list(published(files)) == [f"signingKeys/{kid}"]
    await eventually(lambda: _nothing_staged(files))


async def _is_refused(who: Caller) -> bool:
    return not await who.is_known()


async def _nothing_staged(files: KeyFiles) -> bool:
    return not files.staged_kids()


async def test_a_waiting_key_outlives_the_command(keyed: Office, files: KeyFiles) -> None:
    waiting = await rotated(keyed.root, 600.0)
    kid = await asyncio.to_thread(rotate_key, files, 3600.0)
    await eventually(lambda: is_active(keyed, f"signingKeys/{kid}"))
    assert (waiting.name, PUBLISHED) in await states(keyed.root)
    await eventually(lambda: _has_no_end(files, waiting.name))


async def _has_no_end(files: KeyFiles, name: str) -> bool:
    return "exp" not in published(files)[name]


async def test_a_revoked_key_does_not_come_back_out_of_old_files(
    keyed: Office, files: KeyFiles
) -> None:
    assert files.jwks is not None
    old_key, old_jwks, old = files.key.read_bytes(), files.jwks.read_bytes(), signs(files)
    ada = user(keyed)
    new = await rotated(keyed.root, revoke_present=True)
    write_secret(files.jwks, old_jwks)
    await eventually(lambda: _is_published(files, [new.name]))
    write_secret(files.key, old_key)
    # By the end of this one it is seen that the server has looked at both.
    write_secret(files.jwks, old_jwks)
    await eventually(lambda: _is_published(files, [new.name]))
    async with key_files.held_by_server(files):
        pass  # and is done with them
    await eventually(lambda: _is_refused(ada))
    root = user(keyed, "root")
    assert keyed.signer.key.kid == new.name.partition("/")[2]
    assert await states(root) == [(new.name, ACTIVE), (old, REVOKED)]


async def _is_published(files: KeyFiles, names: list[str]) -> bool:
    return list(published(files)) == names


async def test_no_start_signs_with_a_revoked_key(database_url: str, files: KeyFiles) -> None:
    old_key = files.key.read_bytes()
    async with office(database_url, files=files) as keyed:
        await rotated(keyed.root, revoke_present=True)
    write_secret(files.key, old_key)
    with pytest.raises(SigningKeyError, match="rotate-key"):
        async with office(database_url, files=files):
            pass
    kid = await asyncio.to_thread(rotate_key, files, 60.0)
    async with office(database_url, files=files) as keyed:
        found = await listed(keyed.root)
        assert (found[0].name, found[0].state) == (f"signingKeys/{kid}", ACTIVE)
        assert [key.state for key in found[1:]] == [RETIRED, REVOKED]


@pytest.mark.parametrize("late", [False, True])
async def test_a_waiting_key_begins_across_a_restart(
    database_url: str, files: KeyFiles, late: bool
) -> None:
    async with office(database_url, files=files) as keyed:
        new = await rotated(keyed.root, 1.0)
    if late:
        await asyncio.sleep(1.0)
    async with office(database_url, files=files) as keyed:
        if late:
            assert await is_active(keyed, new.name)
        await eventually(lambda: signs_with(keyed, new.name))
    assert signs(files) == new.name


async def test_a_staged_file_without_a_row_is_removed_at_start(
    database_url: str, files: KeyFiles
) -> None:
    files.stage(new_key())
    (foreign := files.key.with_name("authorization.notes.pem")).touch()
    async with office(database_url, files=files) as keyed:
        assert len(await listed(keyed.root)) == 1
    assert not files.staged_kids()
    assert foreign.exists()


async def test_a_waiting_key_whose_private_half_is_lost_is_given_up(
    database_url: str, files: KeyFiles
) -> None:
    async with office(database_url, files=files) as keyed:
        lost = await rotated(keyed.root, 600.0)
        files.unstage(lost.name.partition("/")[2])
    long_ago = now_us() - DAY_US

    def due(conn: Connection) -> None:
        waits = SIGNING_KEY.c.state == rows.KeyState.PUBLISHED
        conn.execute(update(SIGNING_KEY).where(waits).values(activate_time_us=long_ago))

    async with opened(database_url) as db:
        await db.write(due)
    async with office(database_url, files=files) as keyed:
        assert (lost.name, REVOKED) in await states(keyed.root)
        assert (await rotated(keyed.root)).state == ACTIVE


async def test_every_replica_signs_with_the_new_key_and_refuses_a_revoked_one(
    database_url: str, files: KeyFiles
) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(office(database_url, files=files))
        two = await stack.enter_async_context(office(database_url, files=files))
        seen_by_two = two.caller("ada", token=one.signer.sign_user("ada", lifetime_s=600))
        assert await seen_by_two.is_known()
        new = await rotated(one.root)
        await eventually(lambda: signs_with(two, new.name))
        assert await seen_by_two.is_known()
        theirs = two.signer.sign_user("bob", lifetime_s=600)
        last = await rotated(one.root, revoke_present=True)
        async with asyncio.timeout(1.0):
            while await two.caller("bob", token=theirs).is_known():
                await asyncio.sleep(0.01)
        await eventually(lambda: signs_with(two, last.name))
        assert await seen_by_two.is_known()  # of a key that has retired
        made = await asyncio.gather(
            *(rotated(user(each, "root"), request_id=uuid7()) for each in (one, two))
        )
        assert len({key.name for key in made}) == 2
        assert [state for _, state in await states(user(two))].count(ACTIVE) == 1


async def test_a_replica_ends_what_another_one_left_undone(
    database_url: str, files: KeyFiles
) -> None:
    """One that died right after its commit."""
    async with office(database_url, files=files) as keyed:
        new, now = new_key(), now_us()
        files.stage(new)
        jwk = json.dumps(new.as_dict(private=False))

        def commit(conn: Connection) -> None:
            (old,) = rows.every(conn)
            rows.put(
                conn,
                [
                    rows.StoredKey(
                        old.uid, old.kid, rows.KeyState.REVOKED, old.public_jwk, now, now, now, now
                    ),
                    rows.StoredKey(uuid7(), str(new.kid), rows.KeyState.ACTIVE, jwk, now, now),
                ],
            )

        ada = user(keyed)
        async with key_files.held_by_server(files), opened(database_url) as db:
            await db.write(commit)
        await eventually(lambda: _is_refused(ada))
        await eventually(lambda: signs_with(keyed, f"signingKeys/{new.kid}"))
        assert not files.staged_kids()
        assert list(published(files)) == [f"signingKeys/{new.kid}"]
