"""The loop in which every service deletes what is past its time.

Responsible for nothing but its pace: what is old is each service's own (its module `retention`).
"""

from collections.abc import Awaitable, Callable

from structlog.stdlib import BoundLogger

from gridlane_kit.background import Background


def pruning(prune: Callable[[], Awaitable[object]], every_s: float, log: BoundLogger) -> Background:
    """The work of pruning, to be started or run.

    Parameters:
        prune: deletes what is old now, in small transactions.
        every_s: seconds between two times, also after one that failed.
        log: told what went wrong.
    """

    async def pruned() -> float:
        await prune()
        return every_s

    return Background(
        pruned,
        name="retention",
        log=log,
        trouble="what is old could not all be pruned",
        again_s=every_s,
    )
