"""The loop in which every service deletes what is past its time.

Responsible for going on: a database that is away, or a defect, is told, and what is old is tried
again at the next time. What is old is each service's own (its module `retention`).
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Never

from structlog.stdlib import BoundLogger

from gridlane_kit.errors import GridlaneError


async def prune_for_ever(
    prune: Callable[[], Awaitable[object]], every_s: float, log: BoundLogger
) -> Never:
    """Prunes again and again; never returns.

    Parameters:
        prune: deletes what is old now, in small transactions.
        every_s: seconds between two times.
        log: told what went wrong.
    """
    while True:
        try:
            await prune()
        except (GridlaneError, OSError) as error:
            log.warning("what is old could not all be pruned", why=str(error))
        except Exception:  # a defect: told, and what is old must not grow for ever
            log.exception("what is old could not all be pruned")
        await asyncio.sleep(every_s)
