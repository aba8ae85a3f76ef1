"""Spans of a service, on their way to Reporting in another process.

Responsible for keeping ended spans until they are sent, for sending them in batches in the
service's own name (OTLP 1.x, `TraceService/Export`), and for never holding anybody up: while
Reporting is away they wait in a bounded queue, and the oldest make room. Spans decorate a job's
story, they are not a part of it. Not for collectors outside (`telemetry.OtlpExport`).
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final

from grpc import aio

from gridlane_kit.assertions import AssertionSigner
from gridlane_kit.channels import ChannelClosedError, PeerChannel
from gridlane_kit.identity import service_principal
from gridlane_kit.otlp import EXPORT, otlp_request
from gridlane_kit.peers import SPAN_KEEPER
from gridlane_kit.telemetry import FinishedSpan

QUEUE_SPANS: Final = 10_000
BATCH_SPANS: Final = 512
PERIOD_S: Final = 0.25
"""How long an ended span waits for others. People look at a story after its job."""
LONGEST_PAUSE_S: Final = 5.0
"""How often Reporting is tried while it is away."""
DEADLINE_S: Final = 5.0
LAST_DEADLINE_S: Final = 1.0
"""What a process that ends gives the spans that it still holds."""

# Begins no trace of its own at the receiver: exports of exports would never end.
_UNSAMPLED: Final = "00-00000000000000000000000000000001-0000000000000001-00"
_log = logging.getLogger(__name__)


class SpanExport:
    """A sink for telemetry that sends what it takes to Reporting.

    Parameters:
        channel: to Reporting; closed with `stop`.
        signer: asserts who sends.
    """

    def __init__(self, channel: PeerChannel, signer: AssertionSigner) -> None:
        self._channel = channel
        self._signer = signer
        self._principal = service_principal(signer.service)
        # Appended to by any thread: a deque's appends are atomic, and drop what is too much.
        self._queue: deque[FinishedSpan] = deque(maxlen=QUEUE_SPANS)
        self._task: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        return len(self._queue)

    def accept(self, span: FinishedSpan) -> None:
        """Keeps a span until it is sent."""
        self._queue.append(span)

    async def start(self) -> None:
        """Begins to send, in the running event loop."""
        self._task = asyncio.create_task(self._send_for_ever(), name="span-export")

    async def stop(self) -> None:
        """Sends what is left, if that is done soon, and closes the channel."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_DEADLINE_S):
                    while self._queue and await self._send_batch():
                        pass
        await self._channel.close(0.0)

    async def _send_for_ever(self) -> None:
        pause_s, away = PERIOD_S, False
        while True:
            await asyncio.sleep(pause_s)
            while self._queue:
                sent = await self._send_batch()
                if away is sent:
                    _log.info("spans are sent again" if sent else "spans wait for Reporting")
                    away = not sent
                if not sent:
                    pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
                    break
                pause_s = PERIOD_S

    async def _send_batch(self) -> bool:
        """Sends the oldest spans; what is not taken stays.

        Returns:
            Whether they were taken.
        """
        batch = list(islice(self._queue, BATCH_SPANS))
        request = otlp_request(batch).SerializeToString()
        try:
            export = self._channel.callable("unary_unary", EXPORT)
            header = self._signer.header(self._principal, SPAN_KEEPER)
            metadata = (("authorization", header), ("traceparent", _UNSAMPLED))
            await export(request, timeout=DEADLINE_S, metadata=metadata)
        except (aio.AioRpcError, aio.UsageError, ChannelClosedError) as error:
            _log.debug("spans were not taken: %s", error)
            self._signer.forget(self._principal, SPAN_KEEPER)
            return False
        self._forget(batch)
        return True

    def _forget(self, batch: Sequence[FinishedSpan]) -> None:
        """Drops what was sent; some of it may have made room meanwhile."""
        sent = {id(span) for span in batch}
        while self._queue and id(self._queue[0]) in sent:
            self._queue.popleft()
