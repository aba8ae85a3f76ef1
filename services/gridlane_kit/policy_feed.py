"""The policy in a process that is not Authorization's: followed, kept on disk, closed when stale.

Responsible for applying what `PolicyService.FollowPolicy` sends, each time as a whole new policy,
for following again when the stream ends, for the copy on disk, and for not letting the process
serve before there is a policy. It is a room of the server, the first of those that need a policy.
How a policy closes is `policy_freshness`'s, the file's form `policy_file`'s.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from gridlane.authorization.v1 import policy_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import Caller
from gridlane_kit.clock import now_us
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import service_principal
from gridlane_kit.logs import logger
from gridlane_kit.metrics import POLICY_STALENESS_SECONDS, Metrics
from gridlane_kit.peers import StubFactory, reading
from gridlane_kit.policy import Policy, PolicyDraft, PolicyHolder
from gridlane_kit.policy_file import KeptPolicy, PolicyFile, PolicyFileError
from gridlane_kit.policy_freshness import Freshness
from gridlane_kit.policy_messages import change_of, take_part
from gridlane_kit.telemetry import Telemetry, TraceContext

if TYPE_CHECKING:
    from gridlane.authorization.v1.policy_service_pb2_grpc import PolicyServiceAsyncStub

_SILENCE_S: Final = 3.0
"""Heartbeats come each quarter of a second: a stream that is silent for so long is dead."""
_RETRY_S: Final = 0.1
_MAX_RETRY_S: Final = 3.0
_GATHER_S: Final = 1.0
_GATHER_WRITES: Final = 20
"""A change may be followed by others: it waits to be written for a second, or for so many times
what the last writing took."""
_CONFIRM_S: Final = 20.0
"""How often the time in the file is written; with the rest, less than 30 s."""

_log = logger("policy")


class _MissedError(Exception):
    """What came does not follow what is here: the whole policy is needed."""


class PolicyFollower:
    """Follows the policy into the holder of this process.

    Parameters:
        service: who follows: "transfer".
        stub: Authorization's feed, `peers.authorization_policy`.
        holder: what the process decides from; closed from here on, until there is a policy.
        telemetry: whose context the calls carry.
        metrics: where the policy's staleness is reported.
        file: where the policy is kept (mode 0600), its folder exists; None: nowhere, and a start
            waits for Authorization.
        stale_after_s: so long a policy that nobody confirmed is good, seconds.
    """

    name = "policy"

    def __init__(
        self,
        service: str,
        stub: "StubFactory[PolicyServiceAsyncStub]",
        holder: PolicyHolder,
        *,
        telemetry: Telemetry,
        metrics: Metrics,
        file: Path | None,
        stale_after_s: float = 60.0,
    ) -> None:
        self._service = service
        self._stub = stub
        self._telemetry = telemetry
        self._file = None if file is None else PolicyFile(file)
        self._stale_after_s = stale_after_s
        self._freshness = Freshness(holder, stale_after_s)
        self._freshness.begin()
        metrics.watch(POLICY_STALENESS_SECONDS, service, self._freshness.staleness_s)
        self._epoch = ""
        self._policy: Policy | None = None
        self._draft: PolicyDraft | None = None
        self._missed = False
        self._written: Policy | None = None
        self._changed = asyncio.Event()
        self._failures = 0
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begins to follow, and returns when there is a policy: the kept one, or Authorization's.

        However long that takes: who does not know the policy cannot serve.
        """
        if self._file is not None:
            await self._take_kept(self._file)
        self._tasks.append(asyncio.create_task(self._run(), name="policy-follower"))
        try:
            if self._policy is None:
                _log.warning("not serving yet: waiting for Authorization to send the policy")
                await self._changed.wait()
        except asyncio.CancelledError:
            await self.stop()
            raise
        if self._file is not None:
            self._tasks.append(asyncio.create_task(self._keep(self._file), name="policy-file"))

    def handlers(self) -> Sequence[tuple[str, object]]:
        """Returns none: nobody calls a follower."""
        return ()

    async def drain(self) -> None:
        """Goes on: calls that are being finished are decided too."""

    async def stop(self) -> None:
        """Ends, and keeps the policy for the next start."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        self._tasks.clear()
        self._freshness.stop()
        if self._file is not None:
            await self._write(self._file)

    async def _run(self) -> None:
        while True:
            try:
                await self._follow()
            except _MissedError as missed:
                _log.warning(
                    "changes of the policy were missed: all of it is asked for", reason=str(missed)
                )
                self._missed = True
            except (GridlaneError, TimeoutError) as error:
                self._broke(error)
            except Exception as error:  # a defect: told each time, and never the end of following
                _log.critical("the policy's feed cannot be understood", exc_info=error)
                self._missed = True
            self._failures += 1
            longest_s = min(_RETRY_S * 2 ** min(self._failures - 1, 6), _MAX_RETRY_S)
            await asyncio.sleep(longest_s * random.uniform(0.5, 1.0))  # noqa: S311 - no secret

    async def _follow(self) -> None:
        self._draft = None
        request = policy_service_pb2.FollowPolicyRequest()
        if self._policy is not None and not self._missed:
            request.epoch, request.revision = self._epoch, self._policy.revision
        stub = self._stub(self._itself())
        async with reading(stub.FollowPolicy(request)) as messages:
            while True:
                async with asyncio.timeout(_SILENCE_S):
                    message = await anext(messages, None)
                if message is None:
                    raise errors.draining()
                self._take(message)

    def _take(self, message: policy_service_pb2.FollowPolicyResponse) -> None:
        match message.WhichOneof("news"):
            case "snapshot":
                self._take_part(message.snapshot)
            case "change":
                self._require(message.change.revision - 1)
                self._have(self._required().changed(change_of(message.change)))
            case "heartbeat":
                self._require(message.heartbeat.revision)
                self._have(self._required())

    def _take_part(self, part: policy_service_pb2.PolicySnapshot) -> None:
        if self._draft is None:
            self._draft = PolicyDraft()
        policy = take_part(self._draft, part)
        if policy is not None:
            self._epoch, self._missed = part.epoch, False
            self._have(policy)
            self._draft = None

    def _require(self, revision: int) -> None:
        if self._required().revision != revision:
            raise _MissedError(f"revision {self._required().revision} is here, not {revision}")

    def _required(self) -> Policy:
        if self._policy is None or self._missed:
            raise _MissedError("no revision is here")
        return self._policy

    def _have(self, policy: Policy) -> None:
        """Takes the newest policy, which may be the one that is here."""
        if self._failures or self._policy is None:
            _log.info("the policy is followed", revision=policy.revision)
            self._failures = 0
        self._freshness.confirm(policy)
        if policy is not self._policy:
            self._policy = policy
            self._changed.set()

    def _broke(self, error: GridlaneError | TimeoutError) -> None:
        if not self._failures:
            reason = error.reason.value if isinstance(error, GridlaneError) else "silence"
            _log.warning("the policy's feed broke; it is followed again", reason=reason)

    def _itself(self) -> Caller:
        """Returns the service as a caller; unsampled, since it follows without end."""
        root = self._telemetry.root()
        trace = TraceContext(root.trace_id, root.span_id, 0, sampled=False)
        return Caller(service_principal(self._service), None, trace)

    async def _take_kept(self, file: PolicyFile) -> None:
        try:
            kept = await asyncio.to_thread(file.read)
        except (OSError, PolicyFileError) as error:
            _log.error("the kept policy cannot be used", error=str(error))
            return
        if kept is None:
            return
        age_s = (now_us() - kept.confirmed_us) / 1e6
        if not 0 <= age_s < self._stale_after_s:
            _log.warning("the kept policy is too old", age_s=round(age_s, 3))
            return
        _log.info(
            "serving by the kept policy", revision=kept.policy.revision, age_s=round(age_s, 3)
        )
        self._epoch, self._policy, self._written = kept.epoch, kept.policy, kept.policy
        self._freshness.confirm(kept.policy, age_s)

    async def _keep(self, file: PolicyFile) -> None:
        took_s = 0.0
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_CONFIRM_S):
                    await self._changed.wait()
                    await asyncio.sleep(max(_GATHER_S, _GATHER_WRITES * took_s))
            self._changed.clear()
            begun = time.monotonic()
            await self._write(file)
            took_s = time.monotonic() - begun

    async def _write(self, file: PolicyFile) -> None:
        """Keeps the policy; where the file has it already, only when it was confirmed last."""
        policy = self._policy
        if policy is None:
            return
        confirmed_us = now_us() - int(self._freshness.staleness_s() * 1e6)
        try:
            if policy is self._written:
                await asyncio.to_thread(file.confirm, confirmed_us)
            else:
                kept = KeptPolicy(self._epoch, policy, confirmed_us)
                await asyncio.to_thread(file.write, kept)
                self._written = policy
        except OSError as error:
            self._written = None
            _log.error("the policy cannot be kept for the next start", error=str(error))
