"""Placement: what is registered once its bytes are there, what becomes of one that cannot be, and
a catalogue that lies elsewhere.
"""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar
from uuid import UUID

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.json_format import ParseDict
from sqlalchemy import Connection

from gridlane.ids import uuid7
from gridlane.transfer.v1 import (
    replica_pb2,
    replica_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane.transfer.v1 import storage_admin_service_pb2 as admin_pb2
from gridlane.transfer.v1.storage_element_pb2 import StorageElement
from gridlane.type.v1 import explanation_pb2
from gridlane_kit import errors
from gridlane_transfer.catalogue.base import LogicalFile, Registration
from gridlane_transfer.catalogue.embedded import EmbeddedCatalogue

pytestmark = pytest.mark.parametrize("engine", ["sqlite", "postgresql"], indirect=True)

CONTENT = b"a series\n" * 1000
LFN = "LFN:/local/away/copy"
PATIENCE_S = 30


@dataclass
class Site:
    """A house with a storage element `away`, whose VO path can be taken away and given back."""

    house: Any
    words: Any
    root: Path

    def __post_init__(self) -> None:
        self.sue = self.house.client("sue")
        self.admin = self.house.client("admin").storage_admin

    @property
    def url(self) -> str:
        return f"{self.root.as_uri()}/local/away/copy"

    async def make(self, vo_path: str = "/local/away") -> None:
        made = {"endpoints": [{"base_url": self.root.as_uri()}], "vo_paths": {"local": vo_path}}
        request = admin_pb2.CreateStorageElementRequest(
            storage_element_id="away", storage_element=ParseDict(made, StorageElement())
        )
        await self.admin.CreateStorageElement(request)

    async def give_path(self, **vo_paths: str) -> None:
        element = StorageElement(name="storageElements/away", vo_paths=vo_paths)
        request = admin_pb2.UpdateStorageElementRequest(
            storage_element=element, update_mask=FieldMask(paths=["vo_paths"])
        )
        await self.admin.UpdateStorageElement(request)

    async def submit(self, guid: str = "", **fields: Any) -> str:
        source = self.house.file("local/series", CONTENT)
        file = transfer_job_pb2.FileTransfer(source=source, target=self.url, guid=guid)
        job = await self.sue.submit(file, placement=True, **fields)
        return str(job.name)

    @asynccontextmanager
    async def while_it_moves(self, name: str) -> AsyncIterator[None]:
        """What is done here is done before the mover has told of anything."""
        await self.sue.in_state(name, "ACTIVE", PATIENCE_S)
        yield
        self.signal(signal.SIGCONT)

    def signal(self, number: int) -> None:
        for pid in self.house.room.mover.pids:
            os.kill(pid, number)

    async def resolve(self, lfn: str = LFN) -> replica_pb2.LogicalFile | None:
        request = replica_service_pb2.ResolveReplicasRequest(lfns=[lfn])
        (result,) = (await self.sue.replicas.ResolveReplicas(request)).results
        return result.file if result.HasField("file") else None

    async def explained(self, name: str) -> Sequence[Any]:
        request = transfer_service_pb2.ExplainTransferJobRequest(name=name)
        answer = await self.sue.jobs.ExplainTransferJob(request)
        return [told for file in answer.files for told in file.explanations]


@pytest.fixture
async def site(
    start_house: Callable[..., Awaitable[Any]], tmp_path: Path, words: Any
) -> AsyncIterator[Site]:
    root = tmp_path / "away/space"
    root.mkdir(parents=True)
    given = {"workers": 1, "storage_file_roots": [str(root.parent)], "retry_delay_s": 0.2}
    made = Site(await start_house(given=given), words, root)
    yield made
    made.signal(signal.SIGCONT)


async def test_the_guid_of_a_submission_is_registered_and_told(site: Site) -> None:
    await site.make()
    guid = "0192F0C1-2345-7ABC-8DEF-0123456789AB"
    name = await site.submit(guid)
    job = await site.sue.ended(name)
    assert site.words.job(job) == "FINISHED", job.failure
    assert job.files[0].guid == guid.lower()
    found = await site.resolve()
    assert found is not None
    assert (found.guid, found.size_bytes) == (guid.lower(), len(CONTENT))


async def test_a_placed_file_without_a_guid_gets_one(site: Site) -> None:
    await site.make()
    await site.sue.ended(await site.submit())
    found = await site.resolve()
    assert found is not None
    assert str(UUID(found.guid)) == found.guid


async def test_a_guid_that_could_not_be_kept_is_refused(site: Site) -> None:
    source = site.house.file("local/series", CONTENT)
    file = transfer_job_pb2.FileTransfer(source=source, target="LFN:/local/x", guid=uuid7())
    twice = transfer_job_pb2.FileTransfer(source=source, target="LFN:/local/y", guid=file.guid)
    for files, fields in (([file], {}), ([file, twice], {"placement": True})):
        with pytest.raises(grpc.RpcError) as raised:
            await site.sue.submit(*files, **fields)
        assert site.words.reason(raised.value) == "INVALID_FIELDS"
        assert f"transfer_job.files[{len(files) - 1}].guid" in site.words.violations(raised.value)
    inside = (site.house.jobs / "x").as_uri()
    file = transfer_job_pb2.FileTransfer(source=source, target=inside, guid=uuid7())
    with pytest.raises(errors.GridlaneError) as refused:
        await site.house.submit_for("sue", file, placement=True)
    assert "transfer_job.files[0].guid" in str(refused.value.details)


async def test_other_bytes_registered_meanwhile_fail_the_registration_alone(site: Site) -> None:
    await site.make()
    site.signal(signal.SIGSTOP)
    name = await site.submit()
    async with site.while_it_moves(name):
        await site.sue.replicas.RegisterReplica(
            replica_service_pb2.RegisterReplicaRequest(
                lfn=LFN,
                url=(site.house.mirror / "local/away/copy").as_uri(),
                size_bytes=5,
                checksum=site.words.adler32(b"other"),
            )
        )
    job = await site.sue.ended(name, PATIENCE_S)
    assert (site.words.job(job), site.words.files(job)) == (
        "REGISTRATION_FAILED",
        ["CATALOG_FAILED"],
    )
    assert site.words.failure(job) == "CATALOGUE"
    assert "is registered with 5 bytes" in job.files[0].failure.message
    assert (site.root / "local/away/copy").read_bytes() == CONTENT
    history = await site.sue.history(name)
    assert history[-3:] == [
        "file REGISTERING",
        "file CATALOG_FAILED",
        "job REGISTRATION_FAILED",
    ]


async def test_a_guid_that_another_file_took_meanwhile_fails_the_registration(site: Site) -> None:
    await site.make()
    site.signal(signal.SIGSTOP)
    guid = uuid7()
    name = await site.submit(guid)
    async with site.while_it_moves(name):
        await site.sue.replicas.RegisterReplica(
            replica_service_pb2.RegisterReplicaRequest(
                lfn="LFN:/local/first",
                url=(site.house.storage / "local/first").as_uri(),
                size_bytes=5,
                checksum=site.words.adler32(b"other"),
                guid=guid,
            )
        )
    job = await site.sue.ended(name, PATIENCE_S)
    assert site.words.job(job) == "REGISTRATION_FAILED"
    assert guid in job.files[0].failure.message
    assert "first" not in job.files[0].failure.message
    assert await site.resolve() is None


async def test_a_target_with_another_guid_is_not_moved_to(site: Site) -> None:
    await site.make()
    await site.sue.ended(await site.submit(uuid7()))
    overwrite = transfer_job_pb2.OVERWRITE_MODE_ALWAYS
    job = await site.sue.ended(await site.submit(uuid7(), overwrite=overwrite))
    assert (site.words.job(job), site.words.files(job)) == ("FAILED", ["CATALOG_FAILED"])
    assert job.files[0].attempt == 0


async def test_a_registration_waits_for_a_path_that_is_given_back(site: Site) -> None:
    await site.make()
    site.signal(signal.SIGSTOP)
    name = await site.submit(max_retries=100)
    async with site.while_it_moves(name):
        await site.give_path(other="/other")
    await site.sue.in_state(name, "REGISTERING", PATIENCE_S)
    assert site.words.job(await site.sue.get(name)) == "REGISTERING"
    (told,) = await site.explained(name)
    assert told.reason == explanation_pb2.WAIT_REASON_RETRY_DELAY
    assert "storageElements/away, which has no place for" in told.message
    assert told.HasField("expected_time")
    await site.give_path(local="/local/away")
    job = await site.sue.ended(name, PATIENCE_S)
    assert site.words.job(job) == "FINISHED"
    file = job.files[0]
    assert not file.HasField("failure")
    assert file.attempt == 1
    attempts = await site.sue.jobs.ListFileAttempts(
        transfer_service_pb2.ListFileAttemptsRequest(parent=file.name)
    )
    (attempt,) = attempts.attempts
    # It ended when the bytes were there, the file when it was registered.
    waited = file.end_time.ToMicroseconds() - attempt.end_time.ToMicroseconds()
    assert 0 < waited <= file.registration_time.ToMicroseconds()
    found = await site.resolve()
    assert found is not None
    assert found.replicas[0].storage_element == "storageElements/away"


async def test_a_registration_is_given_up_when_the_retries_are_spent(site: Site) -> None:
    await site.make()
    site.signal(signal.SIGSTOP)
    name = await site.submit(max_retries=2)
    async with site.while_it_moves(name):
        await site.give_path(other="/other")
    job = await site.sue.ended(name, PATIENCE_S)
    assert site.words.job(job) == "REGISTRATION_FAILED"
    assert job.files[0].failure.cure
    assert job.files[0].HasField("registration_time")  # the bytes are accounted
    assert (site.root / "local/away/copy").read_bytes() == CONTENT
    await site.give_path(local="/local/away")
    assert await site.resolve() is None


async def test_a_cancelled_job_registers_once_more_and_ends(site: Site) -> None:
    await site.make()
    site.signal(signal.SIGSTOP)
    name = await site.submit(max_retries=100)
    async with site.while_it_moves(name):
        await site.give_path(other="/other")
    await site.sue.in_state(name, "REGISTERING", PATIENCE_S)
    request = transfer_service_pb2.CancelTransferJobRequest(name=name)
    asked = await site.sue.jobs.CancelTransferJob(request)
    assert site.words.job(asked) in ("CANCELING", "REGISTRATION_FAILED")
    job = await site.sue.ended(name, PATIENCE_S)
    assert site.words.files(job) == ["CATALOG_FAILED"]


async def test_an_element_that_is_configured_no_more_is_waited_for_over_restarts(
    site: Site,
) -> None:
    house = site.house
    there = list(house.elements)
    site.signal(signal.SIGSTOP)
    source = house.file("local/series", CONTENT)
    target = (house.mirror / "local/placed").as_uri()
    job = await site.sue.submit((source, target), placement=True, max_retries=100)
    await site.sue.in_state(job.name, "ACTIVE", PATIENCE_S)
    # The process forgets the element, as one does that is started without it.
    elements = house.room._elements
    del elements.configured["mirror"]
    elements.take(([], []))
    site.signal(signal.SIGCONT)
    await site.sue.in_state(job.name, "REGISTERING", PATIENCE_S)
    (told,) = await site.explained(job.name)
    assert "storageElements/mirror, which is no more" in told.message
    house.elements = [element for element in there if element.name != "mirror"]
    await house.restart()
    site.sue = house.client("sue")
    assert site.words.files(await site.sue.get(job.name)) == ["REGISTERING"]
    house.elements = there
    await house.restart()
    site.sue = house.client("sue")
    assert site.words.job(await site.sue.ended(job.name, PATIENCE_S)) == "FINISHED"
    assert await site.resolve("LFN:/local/placed") is not None


class Elsewhere(EmbeddedCatalogue):
    """A catalogue that takes no part in transactions, and is away at first."""

    name = "elsewhere"
    silent = 2
    defects: ClassVar[Collection[str]] = ()
    """Names whose registration is answered by what no catalogue should answer."""

    def register_with(self, conn: Connection, copy: Registration) -> LogicalFile | None:  # type: ignore[override]
        return None

    async def register(
        self, copies: Sequence[Registration], *, deadline: float | None = None
    ) -> Sequence[LogicalFile | Exception]:
        if Elsewhere.silent:
            Elsewhere.silent -= 1
            raise errors.peer_unavailable(self.name)
        answers = await super().register(copies, deadline=deadline)
        return [
            RuntimeError("a defect") if copy.lfn in Elsewhere.defects else answer
            for copy, answer in zip(copies, answers, strict=True)
        ]


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> type[Elsewhere]:
    monkeypatch.setattr("gridlane_transfer.room.EmbeddedCatalogue", Elsewhere)
    monkeypatch.setattr(Elsewhere, "silent", 2)
    monkeypatch.setattr(Elsewhere, "defects", ())
    return Elsewhere


async def test_a_catalogue_that_lies_elsewhere_is_told_after_the_bytes_are_there(
    elsewhere: type[Elsewhere], start_house: Any, words: Any
) -> None:
    house = await start_house()
    sue = house.client("sue")
    files = [(house.file(f"local/{n}", CONTENT), f"LFN:/local/placed/{n}") for n in range(5)]
    job = await sue.submit(*files, placement=True, max_retries=5)
    ended = await sue.ended(job.name, PATIENCE_S)
    assert words.job(ended) == "FINISHED"
    assert elsewhere.silent == 0
    history = await sue.history(job.name)
    assert history.count("file REGISTERING") == history.count("file FINISHED") == 5
    assert "job REGISTERING" in history
    request = replica_service_pb2.ResolveReplicasRequest(lfns=[target for _, target in files])
    answer = await sue.replicas.ResolveReplicas(request)
    assert all(result.HasField("file") for result in answer.results)


async def test_a_catalogue_that_stays_away_fails_the_registrations(
    elsewhere: type[Elsewhere], start_house: Any, words: Any
) -> None:
    elsewhere.silent = 1000
    house = await start_house()
    sue = house.client("sue")
    files = [(house.file("local/a", CONTENT), "LFN:/local/placed")]
    job = await sue.submit(*files, placement=True, max_retries=1)
    ended = await sue.ended(job.name, PATIENCE_S)
    assert words.job(ended) == "REGISTRATION_FAILED"
    assert "the catalogue elsewhere did not answer" in ended.files[0].failure.message


async def test_a_defect_at_one_registration_keeps_no_other_from_its_own(
    elsewhere: type[Elsewhere], start_house: Any, words: Any
) -> None:
    elsewhere.silent = 0
    elsewhere.defects = ["LFN:/local/placed/0"]
    house = await start_house()
    sue = house.client("sue")
    files = [(house.file(f"local/{n}", CONTENT), f"LFN:/local/placed/{n}") for n in range(5)]
    job = await sue.submit(*files, placement=True, max_retries=5)
    async with asyncio.timeout(PATIENCE_S):
        while words.files(await sue.get(job.name)) != ["REGISTERING"] + 4 * ["FINISHED"]:
            await asyncio.sleep(0.02)
