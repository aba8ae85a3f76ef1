"""Work that a service does again and again beside its calls.

Responsible for going on: work is done at once, when it is asked for (`wake`), and when its own
pause is over. A database that is away, and a defect, are told, and the work is tried again after a
while: neither is the end of it. Not for what the work is, nor for taking up what a process that
died has left: the work finds that in its store.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Never

from structlog.stdlib import BoundLogger

from gridlane_kit.errors import GridlaneError

AGAIN_S: Final = 1.0
"""How long after a failure work is tried again where nothing else is said."""

Work = Callable[[], Awaitable[float | None]]
"""Does what there is to be done now; answers after how many seconds it is to be done again unasked,
None: never."""


class Background:
    """A piece of work and its loop.

    Parameters:
        work: what is done; never twice at a time.
        name: of the task.
        log: told of failures.
        trouble: what is told then, "files could not be registered".
        again_s: so many seconds after a failure the work is tried again, woken or not.
        first_s: so many after the start it is done for the first time, woken or not.
    """

    def __init__(
        self,
        work: Work,
        *,
        name: str,
        log: BoundLogger,
        trouble: str,
        again_s: float = AGAIN_S,
        first_s: float = 0.0,
    ) -> None:
        self._work = work
        self._name = name
        self._log = log
        self._trouble = trouble
        self._again_s = again_s
        self._first_s = first_s
        self._woken = asyncio.Event()
        self._task: asyncio.Task[Never] | None = None

    def start(self) -> None:
        """Begins, in a task of its own."""
        self._task = asyncio.create_task(self.run(), name=self._name)

    def wake(self) -> None:
        """Has the work done as soon as can be; once more when it is being done."""
        self._woken.set()

    async def stop(self) -> None:
        """Ends it wherever it is; what is left is found by whoever starts next."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            self._task = None

    async def run(self) -> Never:
        """Does the work again and again; never returns."""
        await asyncio.sleep(self._first_s)
        while True:
            self._woken.clear()
            try:
                pause_s = await self._work()
            except (GridlaneError, OSError) as error:
                self._log.warning(self._trouble, why=str(error))
                await asyncio.sleep(self._again_s)
            except Exception:
                # A defect: told each time. What it concerns stays, and others must not wait for it.
                self._log.exception(self._trouble)
                await asyncio.sleep(self._again_s)
            else:
                await self._rest(pause_s)

    async def _rest(self, pause_s: float | None) -> None:
        try:
            async with asyncio.timeout(pause_s):
                await self._woken.wait()
        except TimeoutError:
            return


def telling(log: BoundLogger, trouble: str) -> Callable[[asyncio.Task[None]], None]:
    """What is called when a task of the work's own has ended: it tells of a failure that would be
    lost otherwise.

    Parameters:
        trouble: as `Background` takes it.
    """

    def ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if isinstance(error, (GridlaneError, OSError)):
            log.warning(trouble, why=str(error))
        elif error is not None:
            log.error(trouble, exc_info=error)

    return ended
