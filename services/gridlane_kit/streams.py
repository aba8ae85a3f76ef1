"""The streams that are open in this process, and how they are cut.

Responsible for ending streams from outside: at a drain, when the caller loses the right to what it
watches, and when its token is good no more because the key is gone that signed it. A cut stream
ends with a status that the client understands, after its generator's own cleaning up.
"""

import asyncio
from collections.abc import Awaitable, Callable

from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Trust
from gridlane_kit.plans import MethodPlan


class OpenStream:
    """One streaming call and the task that serves it."""

    __slots__ = ("call", "plan", "task", "writing")

    def __init__(self, call: Call, plan: MethodPlan, task: "asyncio.Task[object] | None") -> None:
        self.call = call
        self.plan = plan
        self.task = task
        self.writing = False
        """A message is on its way: it is not torn; the pipeline looks for the cut right after it.
        """

    def cut(self, why: GridlaneError) -> None:
        """Ends the stream with this error; the first cut counts."""
        if self.call.cut is None:
            self.call.cut = why
            if not self.writing and self.task is not None:
                self.task.cancel()


class ProvenStream:
    """A stream whose caller is proven anew when what proved it ends, and cut when that fails.

    Parameters:
        trust: what the caller was proven by.
        prove: proves it anew; returns what it is proven by now.
    """

    def __init__(
        self, stream: OpenStream, trust: Trust, prove: Callable[[], Awaitable[Trust]]
    ) -> None:
        self._stream = stream
        self._trust = trust
        self._prove = prove
        self._proving: asyncio.Task[None] | None = None
        trust.follow(self._begin)

    def end(self) -> None:
        """The stream has ended."""
        self._trust.leave(self._begin)
        if self._proving is not None:
            self._proving.cancel()

    def _begin(self) -> None:
        self._proving = asyncio.create_task(self._prove_anew(), name="stream's caller")

    async def _prove_anew(self) -> None:
        try:
            self._trust = await self._prove()
        except GridlaneError as refused:
            self._stream.cut(refused)
        else:
            self._trust.follow(self._begin)


class OpenStreams:
    """All open streams."""

    def __init__(self) -> None:
        self._open: set[OpenStream] = set()
        self.draining = False

    def __len__(self) -> int:
        return len(self._open)

    def add(self, stream: OpenStream) -> None:
        """Takes a stream in.

        Raises:
            GridlaneError: DRAINING.
        """
        if self.draining and not _is_probe(stream):
            raise errors.draining()
        self._open.add(stream)

    def discard(self, stream: OpenStream) -> None:
        """Forgets a stream that has ended."""
        self._open.discard(stream)

    def drain(self) -> None:
        """Cuts every stream with UNAVAILABLE, DRAINING, and refuses new ones."""
        self.draining = True
        for stream in list(self._open):
            if not _is_probe(stream):
                stream.cut(errors.draining())

    def decide_again(self, decide: Callable[[OpenStream], GridlaneError | None]) -> None:
        """Cuts every stream for which `decide` answers an error."""
        for stream in list(self._open):
            denied = decide(stream)
            if denied is not None:
                stream.cut(denied)


def _is_probe(stream: OpenStream) -> bool:
    """Whether the stream watches health: that goes on to the end."""
    return stream.plan.rule.permission is None
