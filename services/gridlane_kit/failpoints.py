"""Named places at which a test can make the process die, fail or wait.

Responsible for the registry of names and for what an armed one does; not for where they stand: a
module declares one for each commit and each outside effect of its own and calls it there.

`GRIDLANE_FAILPOINTS` arms them: `name[=kill|=error|=sleep:SECONDS][@N]`, several separated by
commas. `N` counts the hits of the name in this process, the first is 1 (default); `kill` is the
default. Before the process kills itself, the name is appended to the file named by
`GRIDLANE_FAILPOINT_LOG`, durably.
"""

import os
import re
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

_SPEC = re.compile(
    r"(?P<name>[a-z0-9_.]+)"
    r"(=(?P<action>kill|error|sleep:(?P<seconds>[0-9]+(\.[0-9]+)?)))?"
    r"(@(?P<hit>[1-9][0-9]*))?"
)
_names: set[str] = set()


class FailpointError(Exception):
    """What a failpoint armed with `=error` raises: a stand-in for any unforeseen failure there."""


@dataclass
class _Armed:
    """One armed failpoint; counts its hits across threads."""

    name: str
    action: str
    seconds: float
    hit: int
    _hits: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self) -> None:
        with self._lock:
            self._hits += 1
            due = self._hits == self.hit
        if not due:
            return
        if self.action == "kill":
            _die(self.name)
        elif self.action == "error":
            raise FailpointError(self.name)
        else:
            time.sleep(self.seconds)


def parse(text: str) -> Mapping[str, Callable[[], None]]:
    """Read what `GRIDLANE_FAILPOINTS` says.

    Returns:
        What each armed name does when hit.

    Raises:
        ValueError: an item that does not have the form of the module's docstring.
    """
    armed: dict[str, Callable[[], None]] = {}
    for item in filter(None, (part.strip() for part in text.split(","))):
        match = _SPEC.fullmatch(item)
        if match is None:
            raise ValueError(
                f"GRIDLANE_FAILPOINTS: {item!r} is not name[=kill|=error|=sleep:SECONDS][@N]"
            )
        armed[match["name"]] = _Armed(
            name=match["name"],
            action=(match["action"] or "kill").partition(":")[0],
            seconds=float(match["seconds"] or 0),
            hit=int(match["hit"] or 1),
        )
    return armed


def failpoint(name: str) -> Callable[[], None]:
    """Register a failpoint; call the result at its place. Unarmed, that does nothing.

    Parameters:
        name: `<service>.<noun>.<moment>`, for example `workload.submit.committed`; unique.

    Raises:
        ValueError: the name is taken, or is not of lower-case words, digits and dots.
    """
    if name in _names:
        raise ValueError(f"the failpoint {name!r} is registered twice")
    if not re.fullmatch(r"[a-z0-9_]+(\.[a-z0-9_]+)+", name):
        raise ValueError(f"{name!r} is no name for a failpoint: <service>.<noun>.<moment>")
    _names.add(name)
    return _ARMED.get(name, _unarmed)


def registered() -> list[str]:
    """The names of all failpoints of the modules imported so far, sorted."""
    return sorted(_names)


def _unarmed() -> None:
    """What a failpoint does when no test armed it."""


def _die(name: str) -> None:
    log = os.environ.get("GRIDLANE_FAILPOINT_LOG")
    if log:
        descriptor = os.open(log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        os.write(descriptor, f"{name}\n".encode())
        os.fsync(descriptor)
    os.kill(os.getpid(), signal.SIGKILL)


_ARMED = parse(os.environ.get("GRIDLANE_FAILPOINTS", ""))
