"""The mover's worker process: takes copies as lines of JSON, does them in threads, answers as lines
of JSON.

Started as `python -m gridlane_transfer.backends.embedded.worker SLOTS PARENT_PID OPTIONS`, OPTIONS
being `HttpOptions` as JSON. Responsible for the protocol and for dying with the server: a worker
that outlived it could publish a file that nobody waits for. How a file is copied is `copying`.
Standard library only: it starts in tens of milliseconds and never loads grpc.

In:  {"op": "copy", "id": N, "task": {…}, "guarded": BOOL} · {"op": "publish", "id": N} ·
{"op": "abort", "id": N} · {"op": "clean", "id": N, "task": {…}} ·
{"op": "stat" or "remove", "id": N, "place": {…}, "checksums": […]} ·
[{"op": "copy", …}, …]: to be made together, in one slot
Out: {"id": N, "moved": BYTES} · {"id": N, "whole": true} · {"id": N, "done": {…}} ·
{"id": N, "failed": {…}} · [{…}, …]: several of these
Tasks and places are written as the tuples that they are.
A guarded copy is published only when it was asked for: in answer to `whole`.
`moved` comes as long as a copy does anything; it is 0 while files are only read.
The end of the input aborts what runs, and ends the process.
"""

import contextlib
import ctypes
import json
import os
import resource
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from typing import Any, TextIO

from gridlane_transfer.backends.embedded import copying
from gridlane_transfer.backends.embedded.ends import AnyPlace, Control, CopyTask
from gridlane_transfer.backends.embedded.opening import Ends
from gridlane_transfer.backends.embedded.places import Place
from gridlane_transfer.backends.embedded.together import copy_together
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.backends.embedded.webdav.urls import RemotePlace
from gridlane_transfer.moving.failures import Failed, FailureClass, MoveError

_PR_SET_PDEATHSIG = 1
# How often a running copy says how far it is.
_PROGRESS_S = 0.2
# Questions that are answered at once, besides the copies.
_QUESTIONS = 4
# Copies give way to the server's calls.
_NICENESS = 5
# Messages are made here, and have no circles.
_JSON = json.JSONEncoder(separators=(",", ":"), check_circular=False)


class _Channel:
    """The way back to the server; used by all threads."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._lock = threading.Lock()

    def send(self, message: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        line = f"{_JSON.encode(message)}\n"
        with self._lock:
            self._out.write(line)
            self._out.flush()


class _Running:
    """One copy's control: set from the input's thread, asked from the copy's."""

    def __init__(self, key: int, channel: _Channel, *, guarded: bool) -> None:
        self._key = key
        self._channel = channel
        self._asked = False
        self._stopped = False
        # Of a copy that is not guarded there is nothing to be judged.
        self._judged = threading.Event() if guarded else None
        self._told = time.monotonic()
        self._closers: list[Callable[[], None]] = []
        self._lock = threading.Lock()

    def stop(self) -> None:
        self._stopped = True
        self.publish()
        with self._lock:
            closers = list(self._closers)
        for close in closers:
            close()

    @contextlib.contextmanager
    def closing(self, close: Callable[[], None]) -> Iterator[None]:
        with self._lock:
            self._closers.append(close)
        try:
            yield
        finally:
            with self._lock:
                self._closers.remove(close)

    def publish(self) -> None:
        if self._judged is not None:
            self._judged.set()

    def stopped(self) -> bool:
        return self._stopped

    def asks(self) -> Mapping[str, Any] | None:
        """The question for the leave to publish, when it is to be asked and was not yet."""
        if self._judged is None or self._asked:
            return None
        self._asked = True
        return {"id": self._key, "whole": True}

    def may_publish(self) -> bool:
        if self._judged is not None:
            if (question := self.asks()) is not None:
                self._channel.send(question)
            while not self._judged.wait(_PROGRESS_S):
                self.moved(0)
        return not self._stopped

    def moved(self, total_bytes: int) -> None:
        now = time.monotonic()
        if now - self._told >= _PROGRESS_S:
            self._told = now
            self._channel.send({"id": self._key, "moved": total_bytes})


def task_from(values: Sequence[Any]) -> CopyTask:
    """Read a task as JSON wrote it."""
    number, epoch, sources, target, *rest = values
    return CopyTask(number, epoch, list(map(place_from, sources)), place_from(target), *rest)


def place_from(values: Sequence[str]) -> AnyPlace:
    """Read a place as JSON wrote it; a directory's base is an absolute path, and no URL is one."""
    return Place(*values) if values[0].startswith("/") else RemotePlace(*values)


def serve(lines: TextIO, out: TextIO, slots: int, ends: Ends) -> None:
    """Do what the lines ask until they end."""
    channel = _Channel(out)
    running: dict[int, _Running] = {}
    writes = threading.Lock()
    with (
        ThreadPoolExecutor(slots, thread_name_prefix="copy") as copies,
        ThreadPoolExecutor(_QUESTIONS, thread_name_prefix="question") as questions,
    ):

        def taken(message: Mapping[str, Any]) -> _Running:
            key = message["id"]
            running[key] = _Running(key, channel, guarded=message.get("guarded", False))
            return running[key]

        def forget(messages: Sequence[Mapping[str, Any]], _: object) -> None:
            for message in messages:
                running.pop(message["id"], None)

        for line in lines:
            message = json.loads(line)
            if isinstance(message, list):
                controls = [taken(one) for one in message]
                done = copies.submit(_do_together, message, controls, channel, ends, writes)
                done.add_done_callback(partial(forget, message))
                continue
            if message["op"] in ("abort", "publish"):
                key = message["id"]
                if key in running:
                    running[key].stop() if message["op"] == "abort" else running[key].publish()
                continue
            pool = copies if message["op"] == "copy" else questions
            done = pool.submit(_do, message, taken(message), channel, ends)
            done.add_done_callback(partial(forget, [message]))
        for control in list(running.values()):
            control.stop()


def _do(message: Mapping[str, Any], control: _Running, channel: _Channel, ends: Ends) -> None:
    outcome: Mapping[str, Any] | Exception
    try:
        outcome = _WORKS[message["op"]](message, control, ends)
    except Exception as error:
        outcome = error
    channel.send(_answer(message, outcome))


def _do_together(
    messages: Sequence[Mapping[str, Any]],
    controls: Sequence[_Running],
    channel: _Channel,
    ends: Ends,
    writes: threading.Lock,
) -> None:
    def ask(whole: Sequence[Control]) -> None:
        asked = [one.asks() for one in whole if isinstance(one, _Running)]
        if questions := [question for question in asked if question is not None]:
            channel.send(questions)

    outcomes: Sequence[Mapping[str, Any] | Exception]
    try:
        tasks = [task_from(message["task"]) for message in messages]
        copied = copy_together(list(zip(tasks, controls, strict=True)), ends, ask, writes)
        outcomes = [one if isinstance(one, Exception) else one._asdict() for one in copied]
    except Exception as error:
        outcomes = [error] * len(messages)
    channel.send(list(map(_answer, messages, outcomes)))


def _answer(
    message: Mapping[str, Any], outcome: Mapping[str, Any] | Exception
) -> Mapping[str, Any]:
    key = message["id"]
    if not isinstance(outcome, Exception):
        return {"id": key, "done": outcome}
    if not isinstance(outcome, MoveError):
        traceback.print_exception(outcome)  # a defect
    return {"id": key, "failed": asdict(_failure(outcome))}


def _failure(error: Exception) -> Failed:
    if isinstance(error, MoveError):
        return error.failed
    return Failed(
        FailureClass.INTERNAL, f"the mover failed: {type(error).__name__}", recoverable=True
    )


def _copy(message: Mapping[str, Any], control: _Running, ends: Ends) -> Mapping[str, Any]:
    return copying.copy(task_from(message["task"]), control, ends)._asdict()


def _clean(message: Mapping[str, Any], control: _Running, ends: Ends) -> Mapping[str, Any]:
    copying.clean(task_from(message["task"]), control, ends)
    return {}


def _stat(message: Mapping[str, Any], control: _Running, ends: Ends) -> Mapping[str, Any]:
    place = place_from(message["place"])
    return ends.found(place, message["checksums"], control)._asdict()


def _remove(message: Mapping[str, Any], control: _Running, ends: Ends) -> Mapping[str, Any]:
    return {"removed": ends.remove(place_from(message["place"]), control)}


_WORKS: Mapping[str, Callable[[Mapping[str, Any], _Running, Ends], Mapping[str, Any]]] = {
    "copy": _copy,
    "clean": _clean,
    "stat": _stat,
    "remove": _remove,
}


def _die_with(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; end now when it has already."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent:
        sys.exit(1)


def _open_many() -> None:
    """Have as many open files as is allowed: each of those that are copied together has a few."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def main() -> None:
    """The process's whole life."""
    slots, parent = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent)
    _open_many()
    # The server decides when work ends; a Ctrl-C in its terminal, or a service manager's stop,
    # reaches all of its processes.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICENESS)
    serve(sys.stdin, sys.stdout, slots, Ends(HttpOptions(**json.loads(sys.argv[3]))))


if __name__ == "__main__":
    main()
