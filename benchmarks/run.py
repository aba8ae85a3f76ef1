"""One run of the benchmarks: how much is done, and what its rows share.

Responsible for servers that several rows use: each is started when the first row asks for it, and
ended with the run. What a row measures is its own (`rows`).
"""

import tempfile
from collections.abc import Callable, Hashable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Self, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Effort:
    """How much to measure: `rounds` repetitions, each with windows of `seconds`.

    `stored` is how many jobs the large store of the scale rows has, `file_bytes` the size of the
    file that the mover's row copies; `fresh`: each row that measures a service alone starts one.
    """

    seconds: float = 1.5
    rounds: int = 5
    stored: int = 1_000_000
    file_bytes: int = 1 << 30
    fresh: bool = True


QUICK = Effort(seconds=0.1, rounds=1, stored=5_000, file_bytes=1 << 26, fresh=False)
"""To see that everything is measured: the figures say little."""


class Run:
    """What a row is measured in; use it as a context manager."""

    def __init__(self, effort: Effort) -> None:
        self.effort = effort
        self._stack = AsyncExitStack()
        self._shared: dict[Hashable, Any] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._stack.aclose()

    def directory(self, within: Path | None = None) -> Path:
        """Makes a directory that stays until the run ends.

        ext4 passes by the inodes of files that were removed in the last minutes one by one, so that
        whoever makes files next pays for every removal.

        Parameters:
            within: where; None: where temporary files lie.
        """
        made = tempfile.TemporaryDirectory(prefix="gridlane-benchmark-", dir=within)
        return Path(self._stack.enter_context(made))

    async def shared(
        self,
        make: Callable[P, AbstractAsyncContextManager[T]],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """Returns what `make` makes of these arguments, made once in a run."""
        key = (make, args, *sorted(kwargs.items()))
        if key not in self._shared:
            self._shared[key] = await self._stack.enter_async_context(make(*args, **kwargs))
        made: T = self._shared[key]
        return made
