"""What is seen to on channels from time to time.

Responsible for asking the optimizers, and for files that were submitted to a channel just before it
was removed, in a process that did not know yet: they are put on the channel that leads there now,
some at once, or fail when none does. Neither waits for the other, and no channel for another one's
optimizer. What is done is `store.optimizing`'s and `store.stranded`'s.
"""

from functools import partial
from typing import Final

from gridlane_kit import logs
from gridlane_kit.background import Background
from gridlane_kit.clock import now_us
from gridlane_kit.database import Database
from gridlane_kit.failpoints import failpoint
from gridlane_kit.feed import Feed
from gridlane_transfer.channels.channels import Channels, OptimizerMode
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store import optimizing, stranded
from gridlane_transfer.store.refresh import Refresh

_OPTIMIZED: Final = failpoint("transfer.optimizer.committed")
_REROUTED: Final = failpoint("transfer.stranded.committed")
_LOOKS_A_WINDOW: Final = 4

_log = logs.logger("transfer.channels")


class ChannelCare:
    """The loops.

    Parameters:
        window_s: how long a window of an optimizer is.
    """

    def __init__(
        self,
        db: Database,
        feed: Feed,
        channels: Channels,
        elements: StorageElements,
        refresh: Refresh,
        window_s: float,
    ) -> None:
        self._db = db
        self._feed = feed
        self._channels = channels
        self._elements = elements
        self._refresh = refresh
        self._window_us = round(window_s * 1_000_000)
        self._every_s = window_s / _LOOKS_A_WINDOW
        self._optimizers = Background(
            self._ask_optimizers,
            name="transfer-optimizers",
            log=_log,
            trouble="an optimizer could not be asked",
            again_s=self._every_s,
        )
        self._stranded = Background(
            self._reroute,
            name="transfer-stranded",
            log=_log,
            trouble="files on channels that are no more could not be put on others",
            again_s=self._every_s,
        )

    def start(self) -> None:
        """Begin to look."""
        self._optimizers.start()
        self._stranded.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._optimizers.stop()
        await self._stranded.stop()

    async def _ask_optimizers(self) -> float:
        """Ask every channel's; the first failure is raised when all have been asked."""
        failure: Exception | None = None
        for channel in self._channels.all():
            optimizer = channel.optimizer
            if optimizer is None or optimizer.mode is OptimizerMode.FIXED:
                continue
            look = partial(
                optimizing.look, uid=channel.uid, every_us=self._window_us, time_us=now_us()
            )
            try:
                allowed = await self._db.write_after_lock(look)
            except Exception as error:
                error.add_note(f"it is the optimizer of the channel {channel.name}")
                failure = failure or error
                continue
            if allowed is not None:
                _OPTIMIZED()
                await self._refresh.now()
        if failure is not None:
            raise failure
        return self._every_s

    async def _reroute(self) -> float:
        step = partial(
            stranded.reroute, feed=self._feed, channels=self._channels, elements=self._elements
        )
        while await self._db.write(step):
            _REROUTED()
        return self._every_s
