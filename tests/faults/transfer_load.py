"""Transfers one after the other, while the processes that take and move them come and go.

Responsible for submitting them by clients that call again by themselves, and for what must hold of
all of them together in the end. Stopping, killing and starting processes is the tests'.
"""

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime

from faults import checks, lives, transfer_checks
from support import Deployment

import gridlane

_CLIENTS = 3
_PATIENCE_S = 90
# So many of each client at most: a slow start of a server is not to make a long test.
_MOST = 25
_CONTENT = os.urandom(1 << 20) * 3
_FILES = 3
_RETRY = gridlane.RetryPolicy(longest_delay_s=1, max_attempts=200)


class TransferLoad:
    """Jobs of some files each, of which every one that was answered must end well, and once.

    Parameters:
        server: whose processes come and go; at the same addresses.
    """

    def __init__(self, server: Deployment) -> None:
        self.names: list[str] = []
        """The jobs that were acknowledged so far."""
        self._server = server
        self._place = f"LFN:/local/{gridlane.uuid7()}"
        self._targets: list[str] = []
        self._begun = datetime.now(UTC)
        self._over = threading.Event()

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """Submits while the block runs; raises what any call failed with."""
        with lives.client_of(self._server, _RETRY) as client:
            client.storage.put(_CONTENT, f"{self._place}/source", timeout=_PATIENCE_S)
        with ThreadPoolExecutor(_CLIENTS, thread_name_prefix="submitting") as pool:
            submitting = [pool.submit(self._submit, n) for n in range(_CLIENTS)]
            try:
                yield
            finally:
                self._over.set()
            for one in submitting:
                one.result()

    def await_more(self, jobs: int) -> None:
        """Waits until so many more jobs were acknowledged, and files move."""
        wanted = min(len(self.names) + jobs, _CLIENTS * _MOST)
        lives.until(lambda: len(self.names) >= wanted, f"{wanted} jobs")
        moving = "SELECT count(*) FROM file_transfer WHERE state = 8"
        url = self._server.database_url("transfer")
        lives.until(
            lambda: len(self.names) >= _CLIENTS * _MOST or checks.rows(url, moving) != [(0,)],
            "files on their way",
        )

    def end_well(self) -> None:
        """Waits for the end of all, and checks it."""
        with lives.client_of(self._server, _RETRY) as client:
            jobs = [client.transfers.wait(name, timeout=_PATIENCE_S) for name in self.names]
            checks.all_finished(jobs, [_FILES] * len(jobs))
            listed = client.transfers.list()
            made = [one.name for one in listed if one.create_time.ToDatetime(UTC) >= self._begun]
            # Every one was answered in the end, and none was made twice.
            assert sorted(made) == sorted(self.names)
            lives.until(lambda: transfer_checks.work_is_done(self._server), "the end of the rest")
            there = dict.fromkeys(self._targets, _CONTENT) | {f"{self._place}/source": _CONTENT}
            checks.storage(self._server.data_dir, client, there, f"{self._place}/")
        lives.until(lambda: checks.followed(self._server), "Reporting's acknowledgements")
        since_us = int(self._begun.timestamp() * 1_000_000)
        transfer_checks.all_is_told_once(self._server, since_us)
        assert not checks.leftovers(self._server.data_dir)

    def _submit(self, client_number: int) -> None:
        with lives.client_of(self._server, _RETRY) as client:
            for n in range(_MOST):
                if self._over.is_set():
                    return
                targets = [
                    f"{self._place}/{client_number}/{n}-{file}" for file in range(1, _FILES + 1)
                ]
                files = [gridlane.new_file(f"{self._place}/source", one) for one in targets]
                job = client.transfers.submit(
                    gridlane.new_transfer(files),
                    request_id=gridlane.uuid7(),
                    timeout=_PATIENCE_S,
                )
                self._targets += targets
                self.names.append(job.name)
