"""The keys that sign tokens, over the wire: listed, replaced and revoked; on each engine."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import pytest
from google.protobuf.duration_pb2 import Duration
from grpc import aio
from integration.authorization.policy_office import ISSUER, VETOED, Caller, Office, office
from integration.authorization.test_upkeep import opened
from sqlalchemy import Connection, update

from gridlane.authorization.v1 import authorization_service_pb2
from gridlane.authorization.v1.signing_key_pb2 import SigningKey, SigningKeyState
from gridlane.authorization.v1.signing_key_service_pb2 import (
    ListSigningKeysRequest,
    RotateSigningKeyRequest,
)
from gridlane.ids import uuid7
from gridlane_authorization import key_files
from gridlane_authorization.key_files import KeyFiles, SigningKeyError, rotate_key
from gridlane_authorization.retention import Retention
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.store import signing_keys as rows
from gridlane_authorization.store.tables import SIGNING_KEY
from gridlane_authorization.tokens import open_signer
from gridlane_kit.clock import now_us
from gridlane_kit.data_directory import write_secret
from gridlane_kit.jwks import MAX_KEYS
from gridlane_kit.tokens import new_key

PUBLISHED = SigningKeyState.SIGNING_KEY_STATE_PUBLISHED
ACTIVE = SigningKeyState.SIGNING_KEY_STATE_ACTIVE
RETIRED = SigningKeyState.SIGNING_KEY_STATE_RETIRED
REVOKED = SigningKeyState.SIGNING_KEY_STATE_REVOKED
AUDIENCE = AuthorizationSettings().audience
WHO_AM_I = authorization_service_pb2.WhoAmIRequest()
DAY_S = 86_400
DAY_US = DAY_S * 1_000_000
WAIT_S = 10.0
_EVERY_WAY: Final[Sequence[Mapping[str, Any]]] = (
    {},
    {"revoke_present": True},
    {"seconds": 60.0},
)

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    open_signer(tmp_path, ISSUER, AUDIENCE)
    return KeyFiles.in_folder(tmp_path)


@pytest.fixture
async def served(database_url: str, files: KeyFiles) -> AsyncIterator[Office]:
    async with asyncio.timeout(90), office(database_url, files=files) as replica:
        yield replica


async def rotated(who: Caller, seconds: float = 0.0, **fields: Any) -> SigningKey:
    key: SigningKey = await who(who.keys.RotateSigningKey, asking(seconds, **fields))
    return key


def asking(seconds: float = 0.0, **fields: Any) -> RotateSigningKeyRequest:
    request = RotateSigningKeyRequest(**fields)
    if seconds:
        request.publish_for.CopyFrom(Duration(nanos=round(seconds % 1 * 1e9), seconds=int(seconds)))
    return request


async def listed(who: Caller, size: int = 0) -> list[SigningKey]:
    """All keys that it sees, page by page."""
    found: list[SigningKey] = []
    token = ""
    while True:
        request = ListSigningKeysRequest(page_size=size, page_token=token)
        page = await who(who.keys.ListSigningKeys, request)
        found += page.signing_keys
        token = page.next_page_token
        if not token:
            return found


async def states(who: Caller) -> list[tuple[str, int]]:
    return [(key.name, key.state) for key in await listed(who)]


async def eventually(holds: Callable[[], Any]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not await holds():
            await asyncio.sleep(0.02)


def user(served: Office, subject: str = "ada") -> Caller:
    """Somebody with a token that the present key signed."""
    return served.caller(subject, token=served.signer.sign_user(subject, lifetime_s=600))


async def is_good(who: Caller) -> bool:
    try:
        await who(who.me.WhoAmI, WHO_AM_I)
    except aio.AioRpcError as error:
        if error.code().name != "UNAUTHENTICATED":
            raise
        return False
    return True


def signs(files: KeyFiles) -> str:
    """The name of the key in the file that signs."""
    return f"signingKeys/{key_files.read_key(files.key).kid}"


def published(files: KeyFiles) -> dict[str, dict[str, Any]]:
    assert files.jwks is not None
    return {f"signingKeys/{key['kid']}": key for key in json.loads(files.jwks.read_bytes())["keys"]}


async def test_the_key_that_was_found_is_the_only_one(served: Office, files: KeyFiles) -> None:
    (key,) = await listed(served.root)
    assert (key.name, key.state, key.algorithm) == (signs(files), ACTIVE, "ES256")
    assert json.loads(key.public_jwk) == published(files)[key.name]
    assert not key.HasField("retire_time")
    assert not key.HasField("expire_time")


async def test_a_new_key_signs_at_once_and_tokens_of_the_old_one_stay_good(
    served: Office, files: KeyFiles
) -> None:
    (old,) = await listed(served.root)
    before = user(served)
    new = await rotated(served.root, reason="yearly")
    assert (new.state, new.name) == (ACTIVE, signs(files))
    assert new.create_time == new.activate_time
    assert await is_good(before)
    assert await is_good(user(served))
    first, second = await listed(served.root)
    assert (first, second.name, second.state) == (new, old.name, RETIRED)
    assert second.expire_time.seconds - second.retire_time.seconds == 30 * DAY_S
    jwks = published(files)
    assert "exp" not in jwks[new.name]
    assert 0 <= jwks[old.name]["exp"] - second.expire_time.seconds <= 1
    assert not files.staged_kids()
    assert files.key.stat().st_mode & 0o777 == 0o600
    (entry,) = await served.root.entries(f'resource = "{new.name}"')
    assert (entry.reason, entry.actor.subject) == ("yearly", "root")
    assert entry.method.endswith("/RotateSigningKey")
    assert entry.after["name"] == new.name
    private = str(key_files.read_key(files.key).as_dict(private=True)["d"])
    assert private not in str(entry) + str(first)


async def test_a_published_key_is_known_before_it_signs(served: Office, files: KeyFiles) -> None:
    present = signs(files)
    new = await rotated(served.root, 1.5)
    assert new.state == PUBLISHED
    lies_ahead = new.activate_time.ToMicroseconds() - new.create_time.ToMicroseconds()
    assert lies_ahead == 1_500_000
    assert signs(files) == present
    assert new.name in published(files)
    assert files.staged(new.name.partition("/")[2]).stat().st_mode & 0o777 == 0o600
    await eventually(lambda: _is_active(served, new.name))
    await eventually(lambda: _signs(served, new))
    assert signs(files) == new.name
    assert not files.staged_kids()
    (active, old) = await listed(served.root)
    assert active.activate_time.ToMicroseconds() >= new.activate_time.ToMicroseconds()
    assert (old.name, old.state, old.retire_time) == (present, RETIRED, active.activate_time)


async def _is_active(served: Office, name: str) -> bool:
    return (name, ACTIVE) in await states(served.root)


async def test_while_a_key_waits_there_is_no_other_unless_the_present_one_is_revoked(
    served: Office, files: KeyFiles
) -> None:
    waiting = await rotated(served.root, 600.0)
    for seconds in (0.0, 5.0):
        refused = await served.root.refused(
            served.root.keys.RotateSigningKey, asking(seconds, request_id=uuid7())
        )
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "PRECONDITION")
        assert waiting.name in refused.message
    assert len(await listed(served.root)) == 2
    assert files.staged_kids() == {waiting.name.partition("/")[2]}
    new = await rotated(served.root, revoke_present=True)
    root = served.caller("root", token=served.signer.sign_user("root", lifetime_s=60))
    found = dict(await states(root))
    assert (found[new.name], found[waiting.name]) == (ACTIVE, REVOKED)
    assert list(published(files)) == [new.name]
    assert not files.staged_kids()


async def test_what_a_revoked_key_signed_is_refused_within_a_second(
    served: Office, files: KeyFiles
) -> None:
    ada = user(served)
    root = served.caller("root", token=served.signer.sign_user("root", lifetime_s=600))
    assert await is_good(ada)  # it has a session
    old = signs(files)
    new = await rotated(root, revoke_present=True, reason="lost")
    async with asyncio.timeout(1.0):
        while await is_good(ada) or await is_good(root):
            await asyncio.sleep(0.01)
    again = user(served, "root")
    assert await is_good(again)
    assert await states(again) == [(new.name, ACTIVE), (old, REVOKED)]
    assert list(published(files)) == [new.name]


async def test_the_same_request_makes_one_key(served: Office, files: KeyFiles) -> None:
    id_ = uuid7()
    first = await rotated(served.root, request_id=id_)
    assert await rotated(served.root, request_id=id_) == first
    assert await rotated(served.root, request_id=uuid7()) != first
    retired = await rotated(served.root, request_id=id_)
    assert (retired.name, retired.state) == (first.name, RETIRED)
    assert len(await listed(served.root)) == 3
    assert not files.staged_kids()
    other = asking(request_id=id_, reason="another content")
    assert await served.root.reason(served.root.keys.RotateSigningKey, other) == "REQUEST_ID_REUSED"


async def test_those_who_call_at_once_make_one_key_after_the_other(
    served: Office, files: KeyFiles
) -> None:
    id_ = uuid7()
    made = await asyncio.gather(
        *(rotated(served.root, request_id=id_) for _ in range(4)),
        *(rotated(served.root) for _ in range(4)),
    )
    found = await listed(served.root)
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
    served: Office, files: KeyFiles, fields: dict[str, Any], field: str
) -> None:
    refused = await served.root.refused(served.root.keys.RotateSigningKey, asking(**fields))
    assert (refused.code, refused.reason) == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert refused.fields == (field,)
    assert len(await listed(served.root)) == 1
    assert not files.staged_kids()


async def test_a_wait_of_nothing_or_less_is_refused(served: Office) -> None:
    for duration in (Duration(), Duration(seconds=-1)):
        request = RotateSigningKeyRequest(publish_for=duration)
        refused = await served.root.refused(served.root.keys.RotateSigningKey, request)
        assert refused.fields == ("publish_for",)


async def test_administrators_alone_rotate_and_a_denied_attempt_is_kept(served: Office) -> None:
    ada = user(served)
    assert len(await listed(ada)) == 1
    assert await ada.reason(ada.keys.RotateSigningKey, asking()) == "PERMISSION_DENIED"
    narrow = served.signer.sign_user("root", lifetime_s=60, scopes=["compute.read"])
    root = served.caller("root", token=narrow)
    assert await root.reason(root.keys.RotateSigningKey, asking()) == "SCOPE_TOO_NARROW"

    async def kept() -> bool:
        entries = await served.root.entries()
        return len([e for e in entries if e.method.endswith("RotateSigningKey")]) == 2

    await eventually(kept)


async def test_a_vetoed_caller_is_shown_no_key(served: Office) -> None:
    await served.root.give("eve", VETOED)
    eve = user(served, "eve")
    assert await eve.reason(eve.keys.ListSigningKeys, ListSigningKeysRequest()) == "CALLER_VETOED"


async def test_keys_are_listed_page_by_page_newest_first(served: Office) -> None:
    (first,) = await listed(served.root)
    made = [(await rotated(served.root)).name for _ in range(4)]
    assert [key.name for key in await listed(served.root, size=2)] == [*made[::-1], first.name]
    page = await served.root(served.root.keys.ListSigningKeys, ListSigningKeysRequest(page_size=2))
    theirs = ListSigningKeysRequest(page_token=page.next_page_token)
    ada = user(served)
    assert await ada.reason(ada.keys.ListSigningKeys, theirs) == "TOKEN_NOT_OURS"
    strange = ListSigningKeysRequest(page_token="x")
    assert await ada.reason(ada.keys.ListSigningKeys, strange) == "TOKEN_NOT_OURS"


async def test_no_more_keys_than_verifiers_look_at(
    served: Office, database_url: str, files: KeyFiles
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
    refused = await served.root.refused(served.root.keys.RotateSigningKey, asking())
    assert (refused.reason, "wait until" in refused.message) == ("PRECONDITION", True)
    assert not files.staged_kids()
    assert (await rotated(served.root, revoke_present=True)).state == ACTIVE


async def test_where_another_program_keeps_the_public_keys_nothing_is_stored(
    database_url: str, files: KeyFiles
) -> None:
    async with office(database_url, files=KeyFiles(files.key, None)) as served:
        await _refused_with_the_cure(served)
        assert not files.staged_kids()


async def test_where_the_files_cannot_be_written_nothing_is_stored(
    served: Office, files: KeyFiles
) -> None:
    folder = files.key.parent
    hidden = folder.with_name("hidden")
    folder.rename(hidden)
    try:
        await _refused_with_the_cure(served)
    finally:
        hidden.rename(folder)
    assert not files.staged_kids()
    assert (await rotated(served.root)).state == ACTIVE


async def _refused_with_the_cure(served: Office) -> None:
    before = await states(served.root)
    for fields in _EVERY_WAY:
        refused = await served.root.refused(
            served.root.keys.RotateSigningKey,
            asking(**fields),
        )
        assert (refused.code, refused.reason) == ("FAILED_PRECONDITION", "PRECONDITION")
        assert "gridlane-server rotate-key" in refused.message
    assert await states(served.root) == before
    (kept, *_) = await served.root.entries()
    assert (kept.method.rpartition("/")[2], kept.resource) == ("RotateSigningKey", "")


async def test_a_key_that_the_command_made_is_adopted_while_the_server_runs(
    served: Office, files: KeyFiles
) -> None:
    (first,) = await listed(served.root)
    before = user(served)
    kid = await asyncio.to_thread(rotate_key, files, 3600.0)
    await eventually(lambda: _is_active(served, f"signingKeys/{kid}"))
    new, old = await listed(served.root)
    assert (old.name, old.state) == (first.name, RETIRED)
    assert 0 <= old.expire_time.seconds - old.retire_time.seconds <= 3601
    assert await is_good(before)
    assert served.signer.key.kid == kid
    assert new.name == signs(files)
    await rotated(served.root, request_id=uuid7())
    assert len(await listed(served.root)) == 3


async def test_a_key_that_the_command_gave_up_is_revoked(served: Office, files: KeyFiles) -> None:
    await rotated(served.root)
    waiting = await rotated(served.root, 600.0)
    ada = user(served)
    kid = await asyncio.to_thread(rotate_key, files, 0.0)
    await eventually(lambda: _is_refused(ada))
    await eventually(lambda: _signs(served, SigningKey(name=f"signingKeys/{kid}")))
    root = served.caller("root", token=served.signer.sign_user("root", lifetime_s=60))
    found = await listed(root)
    assert [key.state for key in found].count(REVOKED) == 3
    assert found[0].name == f"signingKeys/{kid}"
    assert (waiting.name, REVOKED) in await states(root)
    assert list(published(files)) == [f"signingKeys/{kid}"]
    await eventually(lambda: _nothing_staged(files))


async def _is_refused(who: Caller) -> bool:
    return not await is_good(who)


async def _nothing_staged(files: KeyFiles) -> bool:
    return not files.staged_kids()


async def test_a_waiting_key_outlives_the_command(served: Office, files: KeyFiles) -> None:
    waiting = await rotated(served.root, 600.0)
    kid = await asyncio.to_thread(rotate_key, files, 3600.0)
    await eventually(lambda: _is_active(served, f"signingKeys/{kid}"))
    assert (waiting.name, PUBLISHED) in await states(served.root)
    await eventually(lambda: _has_no_end(files, waiting.name))


async def _has_no_end(files: KeyFiles, name: str) -> bool:
    return "exp" not in published(files)[name]


async def test_a_revoked_key_does_not_come_back_out_of_old_files(
    served: Office, files: KeyFiles
) -> None:
    assert files.jwks is not None
    old_key, old_jwks, old = files.key.read_bytes(), files.jwks.read_bytes(), signs(files)
    ada = user(served)
    new = await rotated(served.root, revoke_present=True)
    write_secret(files.jwks, old_jwks)
    await eventually(lambda: _is_published(files, [new.name]))
    write_secret(files.key, old_key)
    await eventually(lambda: _is_refused(ada))
    root = served.caller("root", token=served.signer.sign_user("root", lifetime_s=60))
    assert served.signer.key.kid == new.name.partition("/")[2]
    assert await states(root) == [(new.name, ACTIVE), (old, REVOKED)]


async def _is_published(files: KeyFiles, names: list[str]) -> bool:
    return list(published(files)) == names


async def test_no_start_signs_with_a_revoked_key(database_url: str, files: KeyFiles) -> None:
    old_key = files.key.read_bytes()
    async with office(database_url, files=files) as served:
        await rotated(served.root, revoke_present=True)
    write_secret(files.key, old_key)
    with pytest.raises(SigningKeyError, match="rotate-key"):
        async with office(database_url, files=files):
            pass
    kid = await asyncio.to_thread(rotate_key, files, 60.0)
    async with office(database_url, files=files) as served:
        found = await listed(served.root)
        assert (found[0].name, found[0].state) == (f"signingKeys/{kid}", ACTIVE)
        assert [key.state for key in found[1:]] == [RETIRED, REVOKED]


@pytest.mark.parametrize("late", [False, True])
async def test_a_waiting_key_begins_across_a_restart(
    database_url: str, files: KeyFiles, late: bool
) -> None:
    async with office(database_url, files=files) as served:
        new = await rotated(served.root, 1.0)
    if late:
        await asyncio.sleep(1.0)
    async with office(database_url, files=files) as served:
        if late:
            assert await _is_active(served, new.name)
        await eventually(lambda: _signs(served, new))
    assert signs(files) == new.name


async def test_a_staged_file_without_a_row_is_removed_at_start(
    database_url: str, files: KeyFiles
) -> None:
    files.stage(new_key())
    (foreign := files.key.with_name("authorization.notes.pem")).touch()
    async with office(database_url, files=files) as served:
        assert len(await listed(served.root)) == 1
    assert not files.staged_kids()
    assert foreign.exists()


async def test_a_waiting_key_whose_private_half_is_lost_is_given_up(
    database_url: str, files: KeyFiles
) -> None:
    async with office(database_url, files=files) as served:
        lost = await rotated(served.root, 600.0)
        files.unstage(lost.name.partition("/")[2])
    long_ago = now_us() - DAY_US

    def due(conn: Connection) -> None:
        waits = SIGNING_KEY.c.state == rows.KeyState.PUBLISHED
        conn.execute(update(SIGNING_KEY).where(waits).values(activate_time_us=long_ago))

    async with opened(database_url) as db:
        await db.write(due)
    async with office(database_url, files=files) as served:
        assert (lost.name, REVOKED) in await states(served.root)
        assert (await rotated(served.root)).state == ACTIVE


async def test_every_replica_signs_with_the_new_key_and_refuses_a_revoked_one(
    database_url: str, files: KeyFiles
) -> None:
    async with AsyncExitStack() as stack:
        one = await stack.enter_async_context(office(database_url, files=files))
        two = await stack.enter_async_context(office(database_url, files=files))
        seen_by_two = two.caller("ada", token=one.signer.sign_user("ada", lifetime_s=600))
        assert await is_good(seen_by_two)
        new = await rotated(one.root)
        await eventually(lambda: _signs(two, new))
        assert await is_good(seen_by_two)
        theirs = two.signer.sign_user("bob", lifetime_s=600)
        last = await rotated(one.root, revoke_present=True)
        async with asyncio.timeout(1.0):
            while await is_good(two.caller("bob", token=theirs)):
                await asyncio.sleep(0.01)
        await eventually(lambda: _signs(two, last))
        assert await is_good(seen_by_two)  # of a key that has retired
        made = await asyncio.gather(
            *(rotated(each, request_id=uuid7()) for each in _roots(one, two))
        )
        assert len({key.name for key in made}) == 2
        assert [state for _, state in await states(user(two))].count(ACTIVE) == 1


def _roots(*replicas: Office) -> list[Caller]:
    return [
        each.caller("root", token=each.signer.sign_user("root", lifetime_s=60)) for each in replicas
    ]


async def _signs(served: Office, key: SigningKey) -> bool:
    return served.signer.key.kid == key.name.partition("/")[2]


async def test_a_replica_ends_what_another_one_left_undone(
    database_url: str, files: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that died right after its commit."""
    async with office(database_url, files=files) as served:
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

        ada = user(served)
        async with key_files.held_by_server(files), opened(database_url) as db:
            await db.write(commit)
        await eventually(lambda: _is_refused(ada))
        assert served.signer.key.kid == new.kid
        assert not files.staged_kids()
        assert list(published(files)) == [f"signingKeys/{new.kid}"]


async def test_keys_that_nobody_needs_are_forgotten_but_for_revoked_ones(
    served: Office, database_url: str
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
        assert len(await listed(served.root)) == 1
        assert await Retention(AuthorizationSettings(), db).prune() == 1
        kept = await db.read(rows.every)
    assert sorted(key.state for key in kept) == [rows.KeyState.ACTIVE, rows.KeyState.REVOKED]
