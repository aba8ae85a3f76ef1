"""The policy as Authorization itself has it in force, and sends it to those who follow.

Responsible for following this service's own database, which another replica may change as well, and
for what a follower is sent: changes from the database after the revision that it has, the whole
policy when they are not kept, heartbeats as long as the database answers. What is stored is
`store`'s, the form of messages the kit's (`policy_messages`).
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from gridlane.authorization.v1 import policy_service_pb2
from gridlane_authorization import store
from gridlane_kit.clock import now_us, to_timestamp
from gridlane_kit.database import Database
from gridlane_kit.errors import GridlaneError
from gridlane_kit.logs import logger
from gridlane_kit.policy import Policy, PolicyHolder
from gridlane_kit.policy_freshness import Freshness
from gridlane_kit.policy_messages import change_of, snapshot_parts

POLL_S: Final = 0.2
"""How often the database is asked: a change by another replica is in force within a second."""
HEARTBEAT_S: Final = 0.25

_CONFIRMED_S: Final = 1.0
"""A heartbeat says that the database was asked so lately."""
_CHANGES_LIMIT: Final = 1000
"""A follower that lacks more is sent the whole policy."""
_CHANGE_BYTES: Final = 2 * 1024 * 1024
"""A change that is larger is sent as the whole policy: a message may have 4 MiB."""

Response = policy_service_pb2.FollowPolicyResponse
_log = logger("authorization.policy")


class PolicyFeed:
    """The policy of this process, and its followers.

    Parameters:
        db: the service's database; `store.open_policy` has run.
        holder: what this process decides from.
        stale_after_s: so long the policy is good while the database does not answer, seconds.
    """

    def __init__(self, db: Database, holder: PolicyHolder, *, stale_after_s: float) -> None:
        self._db = db
        self._freshness = Freshness(holder, stale_after_s)
        self._epoch = ""
        self._policy = Policy(0, closed=True)
        self._changed = asyncio.Event()
        self._looking = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._unreachable = False

    async def start(self) -> None:
        """Puts the stored policy in force and follows the database from there.

        Raises:
            GridlaneError: STORE_UNAVAILABLE.
        """
        await self._load()
        self._task = asyncio.create_task(self._run(), name="authorization-policy")

    async def refresh(self) -> None:
        """Puts what was committed just now in force in this process.

        Raises:
            GridlaneError: STORE_UNAVAILABLE: it will be with the next look at the database.
        """
        await self._look()

    async def stop(self) -> None:
        """Ends following the database."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            self._task = None
        self._freshness.stop()

    def staleness_s(self) -> float:
        """Returns how long ago the policy was known to be the stored one, seconds."""
        return self._freshness.staleness_s()

    async def follow(self, epoch: str, revision: int) -> AsyncGenerator[Response, None]:
        """What a follower lacks, and then what changes; heartbeats meanwhile.

        Parameters:
            epoch, revision: what the follower has; an empty epoch: nothing.

        Raises:
            GridlaneError: STORE_UNAVAILABLE.
        """
        # The follower may come from a replica that has seen more: no right is given back to it.
        await self._look()
        while True:
            changed = self._changed
            if self.staleness_s() < _CONFIRMED_S:
                now_epoch, policy = self._epoch, self._policy
                async with contextlib.aclosing(self._news(epoch, revision)) as news:
                    async for message in news:
                        yield message
                epoch, revision = now_epoch, policy.revision
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(HEARTBEAT_S):
                    await changed.wait()

    async def _news(self, epoch: str, revision: int) -> AsyncGenerator[Response, None]:
        """What there is to say, now, to one who has this revision."""
        policy = self._policy
        if (epoch, revision) == (self._epoch, policy.revision):
            yield Response(
                heartbeat=policy_service_pb2.PolicyHeartbeat(
                    revision=revision, time=to_timestamp(now_us())
                )
            )
            return
        changes = await self._changes(epoch, revision, policy.revision)
        if changes is None:
            for part in snapshot_parts(self._epoch, policy):
                yield Response(snapshot=part)
        for change in changes or ():
            yield Response(change=change)

    async def _changes(
        self, epoch: str, after: int, up_to: int
    ) -> Sequence[policy_service_pb2.PolicyChange] | None:
        """What was changed between two revisions; None when the whole policy is needed."""
        if epoch != self._epoch or not after < up_to <= after + _CHANGES_LIMIT:
            return None
        changes = await self._db.read(lambda conn: store.read_changes(conn, after, up_to))
        if changes is None or any(change.ByteSize() > _CHANGE_BYTES for change in changes):
            return None
        return changes

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self._look()
                self._unreachable = False
            except GridlaneError as error:
                if not self._unreachable:
                    _log.warning("the policy cannot be read", reason=error.reason.value)
                self._unreachable = True
            except Exception as error:  # a defect: told each time, and the policy closes in the end
                _log.critical("the policy cannot be understood", exc_info=error)

    async def _look(self) -> None:
        """Takes over what was changed in the database."""
        async with self._looking:
            await self._take_over()

    async def _take_over(self) -> None:
        state = await self._db.read(store.read_state)
        if (state.epoch, state.revision) == (self._epoch, self._policy.revision):
            self._freshness.confirm(self._policy)
            return
        changes = await self._changes(state.epoch, self._policy.revision, state.revision)
        if changes is None:
            await self._load()
            return
        policy = self._policy
        for change in changes:
            policy = policy.changed(change_of(change))
        self._put(self._epoch, policy)

    async def _load(self) -> None:
        stored = await self._db.read(store.read_policy)
        self._put(stored.epoch, stored.policy)

    def _put(self, epoch: str, policy: Policy) -> None:
        self._epoch, self._policy = epoch, policy
        self._freshness.confirm(policy)
        self._changed.set()
        self._changed = asyncio.Event()
