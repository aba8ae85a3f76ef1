"""A life of a channel: made, given shares, its files held and let go, removed under waiting files.

Responsible for what an administrator and a channel's manager do, and for the files on the channel.
"""

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import ClassVar

import asyncpg
from faults import checks
from faults.lives import ACTIVE, FINISHED, PATIENCE_S, Life, mover_processes, until
from support import Deployment

import gridlane
from gridlane.transfer.v1.channel_pb2 import (
    Channel,
    ChannelOptimizer,
    ChannelState,
    ExhaustedAction,
    OptimizerMode,
)
from gridlane.transfer.v1.transfer_job_pb2 import FileTransferState, TransferJob, TransferJobState
from gridlane_kit.sqlite import sqlite_file

_BIG = 20 << 20
_HELD = TransferJobState.TRANSFER_JOB_STATE_HELD
_WAITS = FileTransferState.FILE_TRANSFER_STATE_READY


class ManagedChannel(Life):
    """A channel whose files are held once, and which goes while one waits.

    Every call is sent again after a start, with the same request id or for the same name.
    """

    environment: ClassVar[dict[str, str]] = {"GRIDLANE_TRANSFER_OPTIMIZER_EVERY_S": "0.4"}

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self.channel = f"c{gridlane.uuid7()}"
        self.transfers: dict[str, str] = {}
        self._ids = {step: gridlane.uuid7() for step in ("create", "held", "stranded")}
        self._uid = ""
        self._lamed = self._settled = self._gone = False

    def go_on(self) -> None:
        with self.client() as client:
            if not self._uid:
                self._create(client)
            if not self._settled:
                self._have_held(client)
            if not self._gone:
                self._remove_under_a_file(client)
            until(lambda: self._state(client, "stranded") == FINISHED, "the file that was left")

    def check(self) -> None:
        with self.client() as client:
            for step in ("held", "stranded"):
                job = client.transfers.get(self.transfers[step])
                checks.all_finished([job], [1])
                checks.transfer_history(list(client.transfers.events(job.name)), job)
            moved = client.transfers.get(self.transfers["stranded"]).files[0]
            assert moved.channel == "channels/default"
            assert self.channel not in [one.name for one in client.channels.list()]
            assert [one.weight for one in client.activities.get("local").activities] == [1]
        statement = (
            "SELECT count(*) FROM audit_entry WHERE method LIKE '%CreateChannel'"  # noqa: S608
            f" AND resource = 'channels/{self.channel}'"
        )
        # What was committed, and not answered, was not done again.
        assert checks.rows(self.server.database_url("transfer"), statement) == [(1,)]
        # They are in no catalogue, in which the next life looks for what the store has.
        for path in sorted(self._folder.rglob("*"), reverse=True):
            path.unlink()
        self._folder.rmdir()

    @property
    def _folder(self) -> Path:
        return self.server.data_dir / "storage" / self.place.removeprefix("LFN:/")

    def _create(self, client: gridlane.Client) -> None:
        wanted = Channel(
            source="local",
            target="local",
            max_files=2,
            on_exhausted=ExhaustedAction.EXHAUSTED_ACTION_HOLD,
            optimizer=ChannelOptimizer(
                mode=OptimizerMode.OPTIMIZER_MODE_CONSERVATIVE, min_files=1, max_files=4
            ),
        )
        client.activities.update("local", weights={"default": 1}, reason="a life")
        made = client.channels.create(self.channel, wanted, request_id=self._ids["create"])
        table = "SELECT channel_uid FROM channel_optimizer"
        url = self.server.database_url("transfer")

        def is_asked() -> bool:
            client.channels.get(self.channel)  # so that the server's death is noticed
            return (made.uid,) in checks.rows(url, table)

        until(is_asked, "the optimizer")
        self._uid = made.uid

    def _have_held(self, client: gridlane.Client) -> None:
        """Has a file held: the mover dies over it, and it has no retries."""
        if not self._lamed:
            movers = mover_processes(self.server)
            for mover in movers:
                mover.suspend()
            self._lamed = True
            self._submit(client, "held")
            until(lambda: self._state(client, "held") == ACTIVE, "a file on its way")
            for mover in movers:
                mover.kill()
        self._submit(client, "held")
        until(lambda: self._state(client, "held") in (_HELD, FINISHED), "a file that is held")
        if self._state(client, "held") == _HELD:
            names = [file.name for file in client.channels.held(self.channel)]
            assert names == [f"{self.transfers['held']}/files/1"]
            client.channels.release(self.channel, names, reason="a life")
        until(lambda: self._state(client, "held") == FINISHED, "the file that was held")
        self._settled = True

    def _remove_under_a_file(self, client: gridlane.Client) -> None:
        """Takes the channel away behind the server's back, as another process does that has not
        heard of a file that was submitted meanwhile.
        """
        stopped = ChannelState.CHANNEL_STATE_STOPPED
        client.channels.update(Channel(name=self.channel, state=stopped))
        self._submit(client, "stranded")
        assert client.transfers.get(self.transfers["stranded"]).files[0].state == _WAITS
        _write(
            self.server.database_url("transfer"),
            (
                f"UPDATE channel SET name = uid, delete_us = 1 WHERE uid = '{self._uid}'",  # noqa: S608
                "UPDATE settings_revision SET revision = revision + 1 WHERE kind = 'channels'",
            ),
        )
        self._gone = True

    def _submit(self, client: gridlane.Client, step: str) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        source = self._folder / step
        with source.open("ab") as file:
            file.truncate(_BIG)
        target = self._folder / f"{step}-copy"
        files = [gridlane.new_file(source.as_uri(), target.as_uri())]
        job = TransferJob(files=files, max_retries=0)
        self.transfers[step] = client.transfers.submit(job, request_id=self._ids[step]).name

    def _state(self, client: gridlane.Client, step: str) -> int:
        return client.transfers.get(self.transfers[step], timeout=PATIENCE_S).state


def _write(url: str, statements: Sequence[str]) -> None:
    """Writes into a database in one transaction, behind its service's back."""
    file = sqlite_file(url)
    if file is None:
        asyncio.run(_write_postgresql(url, statements))
        return
    with closing(sqlite3.connect(file, timeout=PATIENCE_S)) as database, database:
        for statement in statements:
            database.execute(statement)


async def _write_postgresql(url: str, statements: Sequence[str]) -> None:
    database = await asyncpg.connect(url.replace("+asyncpg", "", 1))
    try:
        async with database.transaction():
            for statement in statements:
                await database.execute(statement)
    finally:
        await database.close()
