"""What is seen to on channels from time to time.

Responsible for asking the optimizers, and for files that were submitted to a channel just before it
was removed, in a process that did not know yet: they are put on the channel that leads there now,
some at once, or fail when none does. What is done is `store.optimizing`'s and `store.stranded`'s.
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
from gridlane_transfer.store import optimizing, stranded
from gridlane_transfer.store.refresh import Refresh

_OPTIMIZED: Final = failpoint("transfer.optimizer.committed")
_REROUTED: Final = failpoint("transfer.stranded.committed")
_LOOKS_A_WINDOW: Final = 4

_log = logs.logger("transfer.channels")


class ChannelCare:
    """The loop.

    Parameters:
        window_s: how long a window of an optimizer is.
    """

    def __init__(
        self, db: Database, feed: Feed, channels: Channels, refresh: Refresh, window_s: float
    ) -> None:
        self._db = db
        self._feed = feed
        self._channels = channels
        self._refresh = refresh
        self._window_us = round(window_s * 1_000_000)
        self._every_s = window_s / _LOOKS_A_WINDOW
        self._background = Background(
            self._see_to_all,
            name="transfer-channels",
            log=_log,
            trouble="channels could not be seen to",
            again_s=self._every_s,
        )

    def start(self) -> None:
        """Begin to look."""
        self._background.start()

    async def stop(self) -> None:
        """Look no more."""
        await self._background.stop()

    async def look(self) -> None:
        """See to everything once.

        Raises:
            GridlaneError: the store did not answer; looking again does the rest.
        """
        for channel in self._channels.all():
            optimizer = channel.optimizer
            if optimizer is not None and optimizer.mode is not OptimizerMode.FIXED:
                look = partial(
                    optimizing.look, uid=channel.uid, every_us=self._window_us, time_us=now_us()
                )
                if await self._db.write_after_lock(look) is not None:
                    _OPTIMIZED()
                    await self._refresh.now()
        while await self._db.write(lambda conn: stranded.reroute(conn, self._feed, self._channels)):
            _REROUTED()

    async def _see_to_all(self) -> float:
        await self.look()
        return self._every_s
