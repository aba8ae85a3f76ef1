"""What the tests of the policy's feed have: Authorization in another process, and its followers.

Responsible for the process's life, for changing the policy in its database as another replica
would, and for a sample that a follower serves. Not for what is tested.
"""

import asyncio
import json
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection

from gridlane.authorization.v1 import policy_service_pb2
from gridlane_authorization import store
from gridlane_kit.assertions import AssertionSigner
from gridlane_kit.call import Caller
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.identity import Principal, service_principal
from gridlane_kit.metrics import Metrics
from gridlane_kit.peers import reading
from gridlane_kit.policy import Binding, Policy, PolicyHolder, Role
from gridlane_kit.policy_feed import PolicyFollower
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.wire_peers import WirePeers

ISSUER = "https://issuer.test/"
ADA = Principal(ISSUER, "ada")
START_S = 30
_PROGRAM = Path(__file__).with_name("authorization_process.py")


def bound(subject: str, role: Role = Role.SUBMITTER, vo: str = "") -> Binding:
    """A binding of the test's issuer."""
    return Binding(ISSUER, subject, role, vo)


VETO = bound("ada", Role.VETOED)


class AuthorizationProcess:
    """Authorization, which may be killed and started again on its port and database."""

    def __init__(
        self, folder: Path, database_url: str, keys: Any, *, stale_after_s: float = 60.0
    ) -> None:
        self._database_url = database_url
        self._stale_after_s = stale_after_s
        self._keys = folder / "keys.json"
        self._keys.write_text(json.dumps(keys))
        self._ready = folder / "ready.json"
        self._log = folder / "authorization.log"
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts it and waits until it serves."""
        self._ready.unlink(missing_ok=True)
        arguments = (self._database_url, self._keys, self.port, self._ready, self._stale_after_s)
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it only starts here
                [sys.executable, _PROGRAM, *map(str, arguments)], stdout=log, stderr=log
            )
        async with asyncio.timeout(START_S):
            while not self._ready.exists():
                assert self._process.poll() is None, self.output
                await asyncio.sleep(0.02)  # another process writes the file

    def send(self, number: signal.Signals) -> None:
        """Sends it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """Ends it with SIGKILL."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait(10)

    @property
    def output(self) -> str:
        """What it wrote."""
        return self._log.read_text(errors="replace")


class OtherReplica:
    """Changes the policy in Authorization's database, as another replica does."""

    def __init__(self, db: Database) -> None:
        self.db = db

    async def change(self, **change: Any) -> int:
        """Changes the policy; returns its revision."""
        return await self.db.write(lambda c: store.change_policy(c, now_us=now_us(), **change))

    async def begin(self, bindings: Sequence[Binding], vos: Sequence[str] = ("local",)) -> None:
        """Makes the first policy."""

        def write(conn: Connection) -> None:
            store.open_policy(conn, jobs_vo_readable=True, now_us=now_us())
            store.change_policy(conn, added=bindings, added_vos=vos, now_us=now_us())

        await self.db.write(write)


class Things:
    """The sample: a call that answers, and a stream that stays open."""

    def __init__(self, messages: Any) -> None:
        self.m = messages

    async def CreateThing(self, request: Any, call: Any) -> Any:
        return self.m.Thing(name=request.thing.name)

    async def ChatThings(self, requests: AsyncIterator[Any], call: Any) -> AsyncIterator[Any]:
        async for request in requests:
            yield request.thing


@asynccontextmanager
async def other_replica(database_url: str) -> AsyncIterator[OtherReplica]:
    """Opens Authorization's database."""
    db = await Database.open(
        database_url, metadata=store.METADATA, migrations=store.MIGRATIONS, migrate=True
    )
    try:
        yield OtherReplica(db)
    finally:
        await db.close()


@asynccontextmanager
async def followed(
    address: str,
    signer: AssertionSigner,
    holder: PolicyHolder,
    *,
    file: Path | None = None,
    stale_after_s: float = 60.0,
    wait: bool = True,
) -> AsyncIterator[PolicyFollower]:
    """A follower of the Authorization at an address; started, unless it is not to `wait`."""
    telemetry = Telemetry("transfer")
    peers = WirePeers("transfer", {"authorization": address}, signer, None, telemetry)
    follower = PolicyFollower(
        "transfer",
        peers.authorization_policy,
        holder,
        telemetry=telemetry,
        metrics=Metrics(),
        file=file,
        stale_after_s=stale_after_s,
    )
    try:
        if wait:
            async with asyncio.timeout(START_S):
                await follower.start()
        yield follower
    finally:
        await follower.stop()
        await peers.close()


class Seen:
    """The policies that a holder got, and when."""

    def __init__(self, holder: PolicyHolder) -> None:
        self._holder = holder
        self._changed = asyncio.Event()
        self.policies: list[Policy] = []
        holder.subscribe(self._take)

    async def until(self, wanted: Callable[[Policy], bool], limit_s: float) -> float:
        """Waits until the policy in force is as wanted; returns the seconds that took."""
        begun = time.perf_counter()
        async with asyncio.timeout(limit_s):
            while not wanted(self._holder.current):
                self._changed.clear()
                await self._changed.wait()
        return time.perf_counter() - begun

    def _take(self, policy: Policy) -> None:
        self.policies.append(policy)
        self._changed.set()


def vetoed(policy: Policy) -> bool:
    """Whether ada is vetoed."""
    return not policy.closed and policy.grants(ADA, now_us()).vetoed


class Feed:
    """The raw messages of a feed."""

    def __init__(self, address: str, signer: AssertionSigner) -> None:
        telemetry = Telemetry("transfer")
        self.peers = WirePeers("transfer", {"authorization": address}, signer, None, telemetry)
        self._caller = Caller(service_principal("transfer"), None, telemetry.root())

    async def until(
        self, kind: str, epoch: str = "", revision: int = 0
    ) -> list[policy_service_pb2.FollowPolicyResponse]:
        """Follows until a message of this kind; a snapshot until its last part."""
        request = policy_service_pb2.FollowPolicyRequest(epoch=epoch, revision=revision)
        stub = self.peers.authorization_policy(self._caller)
        seen = []
        async with reading(stub.FollowPolicy(request)) as messages:
            async for message in messages:
                seen.append(message)
                if message.WhichOneof("news") == kind and (
                    kind != "snapshot" or message.snapshot.last
                ):
                    break
        return seen
