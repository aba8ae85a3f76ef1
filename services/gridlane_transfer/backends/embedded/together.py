"""Copies several small files together, so that a sync of the disk serves many of them.

Responsible for doing the same step of all before the next one of any: all are written, then all
made durable, then all given their names, then their directories made durable. Each file's steps
are `copying`'s, and hold what they hold of one that is copied alone: no file has its name before
its bytes are on disk, and none is told of before its name is.
"""

from collections.abc import Callable, Sequence

from gridlane_transfer.backends.embedded.copying import Copied, Step, Steps, copy_in_steps
from gridlane_transfer.backends.embedded.ends import Control, CopyTask
from gridlane_transfer.backends.embedded.opening import Ends

Ask = Callable[[Sequence[Control]], None]
"""Asks for the leave to publish of several copies at once; the answers are waited for one by one.
"""


def copy_together(
    copies: Sequence[tuple[CopyTask, Control]], ends: Ends, ask: Ask
) -> list[Copied | Exception]:
    """Copy files, each with its own outcome: what `copying.copy` returns or raises for it."""
    outcomes: dict[int, Copied | Exception] = {}
    with ends.together() as shared:
        running = {
            index: copy_in_steps(task, control, shared)
            for index, (task, control) in enumerate(copies)
        }
        while running:
            whole: list[Control] = []
            for index, steps in list(running.items()):
                reached = _next(steps)
                if not isinstance(reached, Step):
                    outcomes[index] = reached
                    del running[index]
                elif reached is Step.WHOLE:
                    whole.append(copies[index][1])
            if whole:
                ask(whole)
    return [outcomes[index] for index in range(len(copies))]


def _next(steps: Steps) -> Step | Copied | Exception:
    """Do a copy's next step; what it came to, when that was the last."""
    try:
        return next(steps)
    except StopIteration as end:
        copied: Copied = end.value
        return copied
    except Exception as error:
        return error
