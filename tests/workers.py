"""How a run is dealt out to several workers (`pytest -n 2`), and what they tell at its end.

Responsible for which tests stay together on one worker, which of them begin first, and for what
workers have to say reaching the terminal. A run without workers goes through the same.
"""

import fcntl
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

# Together: they share five processes, which need not be started by every worker.
_TOGETHER: Final = ("tests/endtoend/",)
# Before all others, the longest first, so that no worker is left alone with them at the end.
_LONG: Final = ("tests/faults/test_failpoints.py", "tests/endtoend/")


class ByFile(LoadScopeScheduling):
    """Deals out files whole, since their tests share fixtures, in the order that they come in."""

    def __init__(self, config: pytest.Config, log: Any) -> None:
        config.option.loadscopereorder = False
        super().__init__(config, log)

    def _split_scope(self, nodeid: str) -> str:
        return unit(nodeid)


def unit(nodeid: str) -> str:
    """What a test stays together with: its file, or more than that."""
    return next(
        (folder for folder in _TOGETHER if nodeid.startswith(folder)), nodeid.partition("::")[0]
    )


def long_first(items: list[pytest.Item]) -> None:
    """Moves the tests that take longest to the front; all others stay in their order."""
    ranks = {name: rank for rank, name in enumerate(_LONG)}
    items.sort(key=lambda item: ranks.get(unit(item.nodeid), len(ranks)))


@contextmanager
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Holds off the run's other workers: for what all of them would make at one place."""
    # A worker's own folder lies in the run's.
    with (tmp_path_factory.getbasetemp().parent / "alone").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


class Told:
    """What a run says when it is over: lines below headings, each of them once."""

    def __init__(self) -> None:
        self.sections: dict[str, list[str]] = {}

    def __call__(self, heading: str, lines: Sequence[str]) -> None:
        section = self.sections.setdefault(heading, [])
        section.extend(line for line in lines if line not in section)

    def merge(self, sections: Mapping[str, Sequence[str]]) -> None:
        """Adds what a worker was told."""
        for heading, lines in sections.items():
            self(heading, lines)

    def write(self, terminal: pytest.TerminalReporter) -> None:
        """Writes it all."""
        for heading, lines in sorted(self.sections.items()):
            terminal.section(heading)
            for line in lines:
                terminal.write_line(line)
