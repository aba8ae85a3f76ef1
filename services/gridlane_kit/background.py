"""Work that a service does again and again beside its calls.

Responsible for going on: work is done at once, when it is asked for (`wake`), and when its own
pause is over. A database that is away, and a defect, are told, and the work is tried again after a
while: neither is the end of it. What lasts is told once, and from time to time that it still does.
Not for what the work is, nor for taking up what a process that died has left: the work finds that
in its store.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Never

from structlog.stdlib import BoundLogger

from gridlane_kit.errors import GridlaneError

AGAIN_S: Final = 1.0
"""How long after a failure work is tried again where nothing else is said."""

_REMIND_S: Final = 60.0
"""How often a failure that lasts is told."""

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
        self._told: tuple[str, float] | None = None

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
            except (Exception, asyncio.CancelledError) as error:
                _end_if_asked()
                # A defect, too: what it concerns stays, and others must not wait for it.
                self._tell(error)
                await asyncio.sleep(self._again_s)
            else:
                _end_if_asked()
                self._told = None
                await self._rest(pause_s)

    def _tell(self, error: BaseException) -> None:
        what, now_s = repr(error), asyncio.get_running_loop().time()
        if self._told is None or self._told[0] != what or self._told[1] + _REMIND_S <= now_s:
            self._told = what, now_s
            _tell(self._log, self._trouble, error)

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
        if error is not None:
            _tell(log, trouble, error)

    return ended


def _tell(log: BoundLogger, trouble: str, error: BaseException) -> None:
    if isinstance(error, (GridlaneError, OSError)):
        log.warning(trouble, why=str(error) or type(error).__name__)  # a timeout has no words
    else:
        log.error(trouble, exc_info=error)


def _end_if_asked() -> None:
    """Ends the task that was cancelled, though its work caught that or made a failure of it.

    A cancellation that nobody asked for is a failure like others: of what the work waited for.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
