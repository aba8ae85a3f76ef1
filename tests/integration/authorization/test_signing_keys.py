"""The keys that sign tokens, over the wire: listed, replaced and revoked; on each engine."""

import asyncio
import json
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration
from integration.authorization.key_office import (
    ACTIVE,
    DAY_S,
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
from integration.authorization.policy_office import VETOED, Office
from integration.authorization.test_upkeep import opened
from sqlalchemy import Connection

from gridlane.authorization.v1.signing_key_service_pb2 import (
    ListSigningKeysRequest,
    RotateSigningKeyRequest,
)
from gridlane.ids import uuid7
from gridlane_authorization import key_files
from gridlane_authorization.key_files import KeyFiles
from gridlane_authorization.retention import Retention
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.store import signing_keys as rows
from gridlane_kit.clock import now_us
from gridlane_kit.jwks import MAX_KEYS
from gridlane_kit.tokens import new_key

pytestmark = pytest.mark.timeout(120)


async def test_the_key_that_was_found_is_the_only_one(keyed: Office, files: KeyFiles) -> None:
    (key,) = await listed(keyed.root)
    assert (key.name, key.state, key.algorithm) == (signs(files), ACTIVE, "ES256")
    assert json.loads(key.public_jwk) == published(files)[key.name]
    assert not key.HasField("retire_time")
    assert not key.HasField("expire_time")


async def test_a_new_key_signs_at_once_and_tokens_of_the_old_one_stay_good(
    keyed: Office, files: KeyFiles
) -> None:
    (old,) = await listed(keyed.root)
    before = user(keyed)
    new = await rotated(keyed.root, reason="yearly")
    assert (new.state, new.name) == (ACTIVE, signs(files))
    assert new.create_time == new.activate_time
    assert await before.is_known()
    assert await user(keyed).is_known()
    first, second = await listed(keyed.root)
    assert (first, second.name, second.state) == (new, old.name, RETIRED)
    assert second.expire_time.seconds - second.retire_time.seconds == 30 * DAY_S
    jwks = published(files)
    assert "exp" not in jwks[new.name]
    assert 0 <= jwks[old.name]["exp"] - second.expire_time.seconds <= 1
    assert not files.staged_kids()
    assert files.key.stat().st_mode & 0o777 == 0o600
    (entry,) = await keyed.root.entries(f'resource = "{new.name}"')
    assert (entry.reason, entry.actor.subject) == ("yearly", "root")
    assert entry.method.endswith("/RotateSigningKey")
    assert entry.after["name"] == new.name
    private = str(key_files.read_key(files.key).as_dict(private=True)["d"])
    assert private not in str(entry) + str(first)


async def test_a_published_key_is_known_before_it_signs(keyed: Office, files: KeyFiles) -> None:
    present = signs(files)
    new = await rotated(keyed.root, 1.5)
    assert new.state == PUBLISHED
    lies_ahead = new.activate_time.ToMicroseconds() - new.create_time.ToMicroseconds()
    assert lies_ahead == 1_500_000
    assert signs(files) == present
    assert new.name in published(files)
    assert files.staged(new.name.partition("/")[2]).stat().st_mode & 0o777 == 0o600
    await eventually(lambda: is_active(keyed, new.name))
    await eventually(lambda: signs_with(keyed, new.name))
    assert signs(files) == new.name
    assert not files.staged_kids()
    (active, old) = await listed(keyed.root)
    assert active.activate_time.ToMicroseconds() >= new.activate_time.ToMicroseconds()
    assert (old.name, old.state, old.retire_time) == (present, RETIRED, active.activate_time)


async def test_while_a_key_waits_there_is_no_other_unless_the_present_one_is_revoked(
    keyed: Office, files: KeyFiles
) -> None:
    waiting = await rotated(keyed.root, 600.0)
    for seconds in (0.0, 5.0):
        refused = await keyed.root.refused(
            keyed.root.keys.RotateSigningKey, asking(seconds, request_id=uuid7())
        )
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "PRECONDITION")
        assert waiting.name in refused.message
    assert len(await listed(keyed.root)) == 2
    assert files.staged_kids() == {waiting.name.partition("/")[2]}
    new = await rotated(keyed.root, revoke_present=True)
    root = user(keyed, "root")
    found = dict(await states(root))
    assert (found[new.name], found[waiting.name]) == (ACTIVE, REVOKED)
    assert list(published(files)) == [new.name]
    assert not files.staged_kids()


async def test_what_a_revoked_key_signed_is_refused_within_a_second(
    keyed: Office, files: KeyFiles
) -> None:
    ada = user(keyed)
    root = user(keyed, "root")
    assert await ada.is_known()  # it has a session
    old = signs(files)
    new = await rotated(root, revoke_present=True, reason="lost")
    async with asyncio.timeout(1.0):
        while await ada.is_known() or await root.is_known():
            await asyncio.sleep(0.01)
    again = user(keyed, "root")
    assert await again.is_known()
    assert await states(again) == [(new.name, ACTIVE), (old, REVOKED)]
    assert list(published(files)) == [new.name]


async def test_the_same_request_makes_one_key(keyed: Office, files: KeyFiles) -> None:
    id_ = uuid7()
    first = await rotated(keyed.root, request_id=id_)
    assert await rotated(keyed.root, request_id=id_) == first
    assert await rotated(keyed.root, request_id=uuid7()) != first
    retired = await rotated(keyed.root, request_id=id_)
    assert (retired.name, retired.state) == (first.name, RETIRED)
    assert len(await listed(keyed.root)) == 3
    assert not files.staged_kids()
    other = asking(request_id=id_, reason="another content")
    assert await keyed.root.reason(keyed.root.keys.RotateSigningKey, other) == "REQUEST_ID_REUSED"


async def test_those_who_call_at_once_make_one_key_after_the_other(
    keyed: Office, files: KeyFiles
) -> None:
    id_ = uuid7()
    made = await asyncio.gather(
        *(rotated(keyed.root, request_id=id_) for _ in range(4)),
        *(rotated(keyed.root) for _ in range(4)),
    )
    found = await listed(keyed.root)
    assert len({key.name for key in made}) == 5
    assert len(found) == 6
    assert [key.state for key in found].count(ACTIVE) == 1
    assert found[0].name == signs(files)
    assert not files.staged_kids()
    assert published(files).keys() == {key.name for key in found}


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"seconds": 31.0 * DAY_S}, "publish_for"),
        ({"seconds": 1.0, "revoke_present": True}, ""),
        ({"reason": "x" * 1025}, "reason"),
        ({"reason": "a\0b"}, "reason"),
        ({"request_id": "not-a-uuid"}, "request_id"),
        ({"request_id": "01939f5e-0000-4000-8000-000000000001"}, "request_id"),
    ],
)
async def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    keyed: Office, files: KeyFiles, fields: dict[str, Any], field: str
) -> None:
    refused = await keyed.root.refused(keyed.root.keys.RotateSigningKey, asking(**fields))
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert refused.fields == (field,)
    assert len(await listed(keyed.root)) == 1
    assert not files.staged_kids()


async def test_a_wait_of_nothing_or_less_is_refused(keyed: Office) -> None:
    for duration in (Duration(), Duration(seconds=-1)):
        request = RotateSigningKeyRequest(publish_for=duration)
        refused = await keyed.root.refused(keyed.root.keys.RotateSigningKey, request)
        assert refused.fields == ("publish_for",)


async def test_administrators_alone_rotate_and_a_denied_attempt_is_kept(keyed: Office) -> None:
    ada = user(keyed)
    assert len(await listed(ada)) == 1
    assert await ada.reason(ada.keys.RotateSigningKey, asking()) == "PERMISSION_DENIED"
    narrow = keyed.signer.sign_user("root", lifetime_s=60, scopes=["compute.read"])
    root = keyed.caller("root", token=narrow)
    assert await root.reason(root.keys.RotateSigningKey, asking()) == "SCOPE_TOO_NARROW"

    async def kept() -> bool:
        entries = await keyed.root.entries()
        return len([e for e in entries if e.method.endswith("RotateSigningKey")]) == 2

    await eventually(kept)


async def test_a_vetoed_caller_is_shown_no_key(keyed: Office) -> None:
    await keyed.root.give("eve", VETOED)
    eve = user(keyed, "eve")
    assert await eve.reason(eve.keys.ListSigningKeys, ListSigningKeysRequest()) == "CALLER_VETOED"


async def test_keys_are_listed_page_by_page_newest_first(keyed: Office) -> None:
    (first,) = await listed(keyed.root)
    made = [(await rotated(keyed.root)).name for _ in range(4)]
    assert [key.name for key in await listed(keyed.root, size=2)] == [*made[::-1], first.name]
    page = await keyed.root(keyed.root.keys.ListSigningKeys, ListSigningKeysRequest(page_size=2))
    theirs = ListSigningKeysRequest(page_token=page.next_page_token)
    ada = user(keyed)
    assert await ada.reason(ada.keys.ListSigningKeys, theirs) == "TOKEN_NOT_OURS"
    strange = ListSigningKeysRequest(page_token="x")
    assert await ada.reason(ada.keys.ListSigningKeys, strange) == "TOKEN_NOT_OURS"


async def test_no_more_keys_than_verifiers_look_at(
    keyed: Office, database_url: str, files: KeyFiles
) -> None:
    many = [new_key() for _ in range(MAX_KEYS - 1)]
    now = now_us()

    def fill(conn: Connection) -> None:
        for key in many:
            text = json.dumps(key.as_dict(private=False))
            row = rows.StoredKey(
                uuid7(), str(key.kid), rows.KeyState.RETIRED, text, now, now, now, now + DAY_US
            )
            rows.put(conn, [row])

    async with opened(database_url) as db:
        await db.write(fill)
    refused = await keyed.root.refused(keyed.root.keys.RotateSigningKey, asking())
    assert (refused.reason, "wait until" in refused.message) == ("PRECONDITION", True)
    assert not files.staged_kids()
    assert (await rotated(keyed.root, revoke_present=True)).state == ACTIVE


async def test_keys_that_nobody_needs_are_forgotten_but_for_revoked_ones(
    keyed: Office, database_url: str
) -> None:
    old = now_us() - 100 * DAY_US

    def fill(conn: Connection) -> None:
        for state in (rows.KeyState.RETIRED, rows.KeyState.REVOKED):
            key = new_key()
            jwk = json.dumps(key.as_dict(private=False))
            row = rows.StoredKey(uuid7(), str(key.kid), state, jwk, old, old, old, old + DAY_US)
            rows.put(conn, [row])

    async with opened(database_url) as db:
        await db.write(fill)
        assert len(await listed(keyed.root)) == 1
        assert await Retention(AuthorizationSettings(), db).prune() == 1
        kept = await db.read(rows.every)
    assert sorted(key.state for key in kept) == [rows.KeyState.ACTIVE, rows.KeyState.REVOKED]
