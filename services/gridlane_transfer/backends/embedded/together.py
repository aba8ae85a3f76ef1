"""Copies several small files together, so that a sync of the disk serves many of them.

Responsible for doing the same step of all before the next one of any: all are written, then all
made durable, then all given their names, then their directories made durable. Each file's steps
are `copying`'s, and hold what they hold of one that is copied alone: no file has its name before
its bytes are on disk, and none is told of before its name is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import Lock
from typing import Final

from gridlane_transfer.backends.embedded.copying import Copied, Step, Steps, copy_in_steps
from gridlane_transfer.backends.embedded.ends import Control, CopyTask
from gridlane_transfer.backends.embedded.opening import Ends

Ask = Callable[[Sequence[Control]], None]
"""Asks for the leave to publish of several copies at once; the answers are waited for one by one.
"""


# So long one waits for another to have written; a storage that hangs holds up its own files alone.
_PATIENCE_S: Final = 0.2


def copy_together(
    copies: Sequence[tuple[CopyTask, Control]], ends: Ends, ask: Ask, writes: Lock
) -> list[Copied | Exception]:
    """Copy files, each with its own outcome: what `copying.copy` returns or raises for it.

    Parameters:
        writes: of the process: its threads write in turn, since two that make a system call for
            every few lines of Python wait for each other at each of them. They sync at once.
    """
    outcomes: dict[int, Copied | Exception] = {}
    with ends.together() as shared:
        running = {
            index: copy_in_steps(task, control, shared)
            for index, (task, control) in enumerate(copies)
        }
        with _turn(writes):
            whole = _step(running, outcomes)
        while running:
            if whole:
                ask([copies[index][1] for index in whole])
            whole = _step(running, outcomes)
    return [outcomes[index] for index in range(len(copies))]


@contextmanager
def _turn(lock: Lock) -> Iterator[None]:
    """Have the block to oneself, unless that takes too long."""
    mine = lock.acquire(timeout=_PATIENCE_S)
    try:
        yield
    finally:
        if mine:
            lock.release()


def _step(running: dict[int, Steps], outcomes: dict[int, Copied | Exception]) -> Sequence[int]:
    """Do the next step of all copies; those that are whole now."""
    whole: list[int] = []
    for index, steps in list(running.items()):
        reached = _next(steps)
        if not isinstance(reached, Step):
            outcomes[index] = reached
            del running[index]
        elif reached is Step.WHOLE:
            whole.append(index)
    return whole


def _next(steps: Steps) -> Step | Copied | Exception:
    """Do a copy's next step; what it came to, when that was the last."""
    try:
        return next(steps)
    except StopIteration as end:
        copied: Copied = end.value
        return copied
    except Exception as error:
        return error
