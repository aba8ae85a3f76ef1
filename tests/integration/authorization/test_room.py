"""Authorization's first and later starts, on a real data directory and each engine."""

import asyncio
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete

from gridlane_authorization.key_files import KeyFiles
from gridlane_authorization.room import AuthorizationRoom
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.store import METADATA, MIGRATIONS, change_policy
from gridlane_authorization.tokens import open_signer, verifier_of
from gridlane_kit.clock import now_us
from gridlane_kit.data_directory import DataDirectory
from gridlane_kit.database import Database
from gridlane_kit.issuers import TrustedIssuers
from gridlane_kit.metrics import Metrics
from gridlane_kit.migrations import schema_differences
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role

Start = Callable[..., Awaitable[PolicyHolder]]


@pytest.fixture
def schema() -> str:
    """A first start finds nothing."""
    return ""


@pytest.fixture
async def data(tmp_path: Path) -> AsyncIterator[DataDirectory]:
    directory = DataDirectory.open(tmp_path / "data")
    yield directory
    directory.close()


@pytest.fixture
def start(data: DataDirectory, database_url: str) -> Start:
    """Starts the room once and stops it again; gives the policy that it put in force."""

    async def start_and_stop(embedded: bool = True, **given: Any) -> PolicyHolder:
        settings = AuthorizationSettings.load("authorization", **given)
        policy = PolicyHolder(Policy(revision=0))
        room = AuthorizationRoom(
            settings,
            database_url=database_url,
            signer=open_signer(data.keys, settings.issuer, settings.audience),
            keys=KeyFiles.in_folder(data.keys),
            policy=policy,
            token_file=data.token_file if embedded else None,
            metrics=Metrics(),
            issuers=TrustedIssuers(settings.audience),
        )
        async with AsyncExitStack() as stack:
            stack.push_async_callback(room.stop)
            await room.start()
            await room.drain()
        return policy

    return start_and_stop


def roles(policy: PolicyHolder) -> set[tuple[str, Role, str]]:
    return {(b.subject, b.role, b.vo) for b in policy.current.bindings}


async def test_the_first_start_makes_a_local_user_who_is_admin_and_submitter(start: Start) -> None:
    policy = await start(local_user="ada")
    assert roles(policy) == {("ada", Role.ADMIN, ""), ("ada", Role.SUBMITTER, "local")}
    assert policy.current.revision == 1


async def test_the_token_in_the_file_proves_the_local_user(
    start: Start, data: DataDirectory
) -> None:
    await start(local_user="ada", token_lifetime_days=1)
    settings = AuthorizationSettings.load("authorization")
    verifier = verifier_of(open_signer(data.keys, settings.issuer, settings.audience))
    principal = await verifier.verify(data.token_file.read_text())
    assert (principal.issuer, principal.subject) == (settings.issuer, "ada")
    assert principal.vos == {"local"}
    assert principal.capabilities is None


async def test_the_token_is_renewed_before_it_ends(data: DataDirectory, database_url: str) -> None:
    settings = AuthorizationSettings.load("authorization", token_lifetime_days=2 / 86_400)
    room = AuthorizationRoom(
        settings,
        database_url=database_url,
        signer=open_signer(data.keys, settings.issuer, settings.audience),
        keys=KeyFiles.in_folder(data.keys),
        policy=PolicyHolder(Policy(revision=0)),
        token_file=data.token_file,
        metrics=Metrics(),
        issuers=TrustedIssuers(settings.audience),
    )
    await room.start()
    try:
        first = data.token_file.read_text()
        async with asyncio.timeout(2):  # the first token's life
            while data.token_file.read_text() == first:
                await asyncio.sleep(0.05)
    finally:
        await room.drain()
        await room.stop()


async def test_secrets_are_readable_by_their_owner_alone(start: Start, data: DataDirectory) -> None:
    await start()
    for file in (data.token_file, data.keys / "authorization.pem"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600


async def test_a_later_start_keeps_key_and_user_and_makes_a_new_token(
    start: Start, data: DataDirectory
) -> None:
    await start(local_user="ada")
    key, token = (data.keys / "authorization.pem").read_bytes(), data.token_file.read_text()
    policy = await start(local_user="grace")
    assert {subject for subject, _, _ in roles(policy)} == {"ada"}
    assert (data.keys / "authorization.pem").read_bytes() == key
    assert data.token_file.read_text() != token


async def test_a_role_that_was_taken_away_is_not_given_back_by_a_start(
    start: Start, database_url: str
) -> None:
    await start(local_user="ada")
    db = await Database.open(database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=False)
    binding = METADATA.tables["role_binding"]
    await db.write(lambda conn: conn.execute(delete(binding).where(binding.c.role == "admin")))
    await db.close()
    assert roles(await start(local_user="ada")) == {("ada", Role.SUBMITTER, "local")}


async def test_elsewhere_the_bootstrap_setting_makes_the_first_admin_and_only_the_first(
    start: Start, data: DataDirectory
) -> None:
    policy = await start(embedded=False, bootstrap_admin="https://issuer.example/ ada")
    assert roles(policy) == {("ada", Role.ADMIN, "")}
    policy = await start(embedded=False, bootstrap_admin="https://issuer.example/ eve")
    assert roles(policy) == {("ada", Role.ADMIN, "")}
    assert not data.token_file.exists()


async def test_an_admin_with_an_end_or_a_veto_does_not_keep_the_bootstrap_setting_from_its_work(
    start: Start, database_url: str
) -> None:
    issuer = "https://issuer.example/"
    await start(embedded=False, bootstrap_admin=f"{issuer} ada")
    ending = Binding(issuer, "tim", Role.ADMIN, expires_us=now_us() + 60_000_000)
    of_group = Binding("", "", Role.ADMIN, "cms", group="/cms")
    veto = Binding(issuer, "ada", Role.VETOED)
    db = await Database.open(database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=False)
    given = [ending, of_group, veto]
    await db.write(lambda conn: change_policy(conn, added=given, now_us=now_us()))
    await db.close()
    policy = await start(embedded=False, bootstrap_admin=f"{issuer} eve")
    assert ("eve", Role.ADMIN, "") in roles(policy)


async def test_migrations_make_exactly_the_tables_of_the_code(database_url: str) -> None:
    db = await Database.open(database_url, metadata=METADATA, migrations=MIGRATIONS, migrate=True)
    try:
        assert await db.read(lambda c: schema_differences(c, METADATA, MIGRATIONS)) == []
    finally:
        await db.close()
