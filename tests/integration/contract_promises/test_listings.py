"""Promises of listings: order, sizes of pages, tokens bound to their request, filters."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from integration.contract_promises.stranger import NOBODYS, Stranger

from gridlane.gateway.v1 import task_service_pb2
from gridlane.ids import uuid7
from gridlane.reporting.v1 import accounting_service_pb2
from gridlane.transfer.v1 import (
    channel_service_pb2,
    replica_service_pb2,
    storage_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane.workload.v1 import job_pb2, job_service_pb2


@dataclass(frozen=True)
class Listing:
    """A method that lists, what it answers in, and a request of something to list."""

    method: Any
    request: Any
    field: str

    def page(self, me: Stranger, **fields: Any) -> Any:
        return me.call(self.method, self.asked(**fields))

    def asked(self, **fields: Any) -> Any:
        request = type(self.request)()
        request.CopyFrom(self.request)
        for name, value in fields.items():
            setattr(request, name, value)
        return request

    def items(self, page: Any) -> Sequence[Any]:
        found: Sequence[Any] = getattr(page, self.field)
        if self.field == "storage_elements":
            for element in found:
                element.ClearField("free_bytes")  # others on the machine change it
        return found


ALL = ["jobs", "job events", "transfers", "files", "transfer events", "records", "replicas"]
FILTERED = ["jobs", "transfers", "records"]
OF_A_PARENT = ["job events", "files", "transfer events", "replicas"]
SMALL = ["channels", "storage elements"]


@pytest.fixture(scope="module")
def things() -> dict[str, Any]:
    """What is made once for all tests of this module: three jobs, three transfers, three files."""
    return {}


def accounted(me: Stranger, job: str) -> Sequence[Any]:
    """What is accounted for a job by now."""
    request = accounting_service_pb2.ListAccountingRecordsRequest(filter=f'job = "{job}"')
    found: Sequence[Any] = me.call(me.accounting.ListAccountingRecords, request).records
    return found


@pytest.fixture
def listings(me: Stranger, things: dict[str, Any]) -> dict[str, Listing]:
    if not things:
        folder = f"LFN:/local/listed-{uuid7()}"
        for n in range(3):
            me.put(f"{folder}/{n}", b"x")
        files = [
            transfer_job_pb2.FileTransfer(source=f"{folder}/0", target=f"{folder}/copy-{n}")
            for n in range(3)
        ]
        request = transfer_service_pb2.SubmitTransferJobRequest(
            transfer_job=transfer_job_pb2.TransferJob(files=files)
        )
        moved = [me.call(me.transfers.SubmitTransferJob, request).name]
        moved += [me.transfer(f"{folder}/0", f"{folder}/{n}").name for n in ("x", "y")]
        jobs = [me.done().name for _ in range(3)]
        things.update(folder=folder, jobs=jobs, transfers=[me.arrived(t).name for t in moved])
        for job in jobs:
            me.eventually(partial(accounted, me, job))
    job, transfer = things["jobs"][0], things["transfers"][0]
    transfers, storage = transfer_service_pb2, storage_service_pb2
    return {
        "jobs": Listing(me.jobs.ListJobs, job_service_pb2.ListJobsRequest(), "jobs"),
        "job events": Listing(
            me.jobs.ListJobEvents, job_service_pb2.ListJobEventsRequest(parent=job), "events"
        ),
        "transfers": Listing(
            me.transfers.ListTransferJobs, transfers.ListTransferJobsRequest(), "transfer_jobs"
        ),
        "files": Listing(
            me.transfers.ListFileTransfers,
            transfers.ListFileTransfersRequest(parent=transfer),
            "files",
        ),
        "transfer events": Listing(
            me.transfers.ListTransferEvents,
            transfers.ListTransferEventsRequest(parent=transfer),
            "events",
        ),
        "records": Listing(
            me.accounting.ListAccountingRecords,
            accounting_service_pb2.ListAccountingRecordsRequest(),
            "records",
        ),
        "replicas": Listing(
            me.replicas.ListReplicas,
            replica_service_pb2.ListReplicasRequest(prefix=things["folder"] + "/"),
            "files",
        ),
        "channels": Listing(
            me.channels.ListChannels, channel_service_pb2.ListChannelsRequest(), "channels"
        ),
        "storage elements": Listing(
            me.storage.ListStorageElements, storage.ListStorageElementsRequest(), "storage_elements"
        ),
    }


@pytest.fixture
def listing(request: pytest.FixtureRequest, listings: dict[str, Listing]) -> Listing:
    return listings[request.param]


@pytest.mark.parametrize("listing", ALL, indirect=True)
def test_pages_of_one_join_to_the_whole(me: Stranger, listing: Listing) -> None:
    whole = listing.items(listing.page(me, page_size=1000))
    by_one: list[Any] = []
    token = ""
    for _ in range(4):
        page = listing.page(me, page_size=1, page_token=token)
        assert len(listing.items(page)) == 1
        by_one += listing.items(page)
        if not (token := page.next_page_token):
            break
    assert by_one == list(whole[: len(by_one)])
    assert len(by_one) >= 3


@pytest.mark.parametrize("listing", [*ALL, *SMALL], indirect=True)
def test_no_page_is_longer_than_asked(me: Stranger, listing: Listing) -> None:
    first = listing.page(me, page_size=1)
    assert len(listing.items(first)) == 1
    whole = listing.items(listing.page(me))
    assert bool(first.next_page_token) == (len(whole) > 1)
    if first.next_page_token:
        second = listing.page(me, page_size=1, page_token=first.next_page_token)
        assert listing.items(second)[0] == whole[1]


@pytest.mark.parametrize("listing", [*ALL, *SMALL], indirect=True)
def test_sizes_are_clamped_and_a_negative_one_is_refused(me: Stranger, listing: Listing) -> None:
    assert len(listing.items(listing.page(me, page_size=0))) <= 50
    assert listing.items(listing.page(me, page_size=2**31 - 1))
    refusal = me.refused(listing.method, listing.asked(page_size=-1))
    assert refusal.short == ("INVALID_ARGUMENT", "INVALID_FIELDS")
    assert refusal.fields == ("page_size",)


def test_without_a_size_a_page_has_50(me: Stranger, folder: str) -> None:
    files = [
        transfer_job_pb2.FileTransfer(source=f"{folder}/none", target=f"{folder}/{n}")
        for n in range(51)
    ]
    job = transfer_job_pb2.TransferJob(files=files, max_retries=0)
    request = transfer_service_pb2.SubmitTransferJobRequest(transfer_job=job)
    name = me.call(me.transfers.SubmitTransferJob, request).name
    asked = transfer_service_pb2.ListFileTransfersRequest(parent=name)
    page = me.call(me.transfers.ListFileTransfers, asked)
    assert [file.name for file in page.files] == [f"{name}/files/{n}" for n in range(1, 51)]
    asked.page_token = page.next_page_token
    last = me.call(me.transfers.ListFileTransfers, asked)
    assert [file.name for file in last.files] == [f"{name}/files/51"]
    assert last.next_page_token == ""


@pytest.mark.parametrize("listing", [*ALL, *SMALL], indirect=True)
@pytest.mark.parametrize("token", ["x", "AAAA", "a" * 1024, "ä", "bm8"])
def test_a_token_of_nobody_is_refused(me: Stranger, listing: Listing, token: str) -> None:
    refusal = me.refused(listing.method, listing.asked(page_token=token))
    assert refusal.short == ("INVALID_ARGUMENT", "TOKEN_NOT_OURS")


@pytest.mark.parametrize("listing", FILTERED, indirect=True)
def test_a_token_is_bound_to_its_filter(me: Stranger, listing: Listing) -> None:
    token = listing.page(me, page_size=1).next_page_token
    refusal = me.refused(listing.method, listing.asked(page_token=token, filter='vo = "local"'))
    assert refusal.short == ("INVALID_ARGUMENT", "TOKEN_NOT_OURS")
    same = listing.page(me, page_size=1, filter='vo = "local"')
    assert listing.page(me, page_token=same.next_page_token, filter="vo=local")


@pytest.mark.parametrize("listing", OF_A_PARENT, indirect=True)
def test_a_token_is_bound_to_its_parent(
    me: Stranger, listing: Listing, things: dict[str, Any]
) -> None:
    token = listing.page(me, page_size=1).next_page_token
    if isinstance(listing.request, replica_service_pb2.ListReplicasRequest):
        other = listing.asked(page_token=token, prefix="LFN:/local/")
    else:
        kind = listing.request.parent.partition("/")[0]
        other = listing.asked(page_token=token, parent=things[kind][1])
    refusal = me.refused(listing.method, other)
    assert refusal.short == ("INVALID_ARGUMENT", "TOKEN_NOT_OURS")


def test_a_token_of_one_listing_is_none_of_another(
    me: Stranger, listings: dict[str, Listing]
) -> None:
    token = listings["jobs"].page(me, page_size=1).next_page_token
    other = listings["transfers"]
    refusal = me.refused(other.method, other.asked(page_token=token))
    assert refusal.reason == "TOKEN_NOT_OURS"


def test_jobs_and_transfers_come_newest_first(
    me: Stranger, listings: dict[str, Listing], things: dict[str, Any]
) -> None:
    for kind, names in (("jobs", things["jobs"]), ("transfers", things["transfers"])):
        found = [i.name for i in listings[kind].items(listings[kind].page(me, page_size=1000))]
        assert [name for name in found if name in names] == names[::-1]
        numbers = [i.number for i in listings[kind].items(listings[kind].page(me, page_size=1000))]
        assert numbers == sorted(numbers, reverse=True)


def test_listed_transfers_are_without_files(me: Stranger, listings: dict[str, Listing]) -> None:
    page = listings["transfers"].page(me, page_size=10)
    assert all(not job.files and job.summary for job in page.transfer_jobs)


def test_events_come_oldest_first_and_begin_with_the_first(
    me: Stranger, listings: dict[str, Listing]
) -> None:
    for kind in ("job events", "transfer events"):
        events = listings[kind].items(listings[kind].page(me, page_size=1000))
        times = [event.time.ToMicroseconds() for event in events]
        assert times == sorted(times)
        assert len({event.event_id for event in events}) == len(events)
    of_job = listings["job events"].items(listings["job events"].page(me))
    assert of_job[0].previous_state == job_pb2.JOB_STATE_UNSPECIFIED
    assert of_job[0].job.name == of_job[0].job_name
    for before, after in pairwise(of_job):
        assert after.previous_state == before.state
    assert of_job[-1].job.state == job_pb2.JOB_STATE_DONE
    of_transfer = listings["transfer events"].items(listings["transfer events"].page(me))
    assert of_transfer[0].previous_state == ""
    assert all(not event.job.files for event in of_transfer)


def test_records_come_newest_end_first(me: Stranger, listings: dict[str, Listing]) -> None:
    records = listings["records"].items(listings["records"].page(me, page_size=1000))
    ends = [record.end_time.ToMicroseconds() for record in records]
    assert ends == sorted(ends, reverse=True)


def test_files_and_channels_and_elements_come_by_name(
    me: Stranger, listings: dict[str, Listing], things: dict[str, Any]
) -> None:
    files = [file.lfn for file in listings["replicas"].page(me).files]
    assert files == sorted(files)
    assert f"{things['folder']}/0" in files
    channels = listings["channels"].page(me).channels
    assert [channel.name for channel in channels] == sorted(channel.name for channel in channels)
    assert all(channel.state and not channel.uid for channel in channels)
    elements = [e.name for e in listings["storage elements"].page(me).storage_elements]
    assert elements == sorted(elements) == ["storageElements/jobs", "storageElements/local"]


@pytest.mark.parametrize(
    ("listing", "text"),
    [
        ("jobs", 'state = "DONE"'),
        ("jobs", 'vo = "local"'),
        ("jobs", 'vo = "local" AND state = "DONE"'),
        ("jobs", 'state = "DONE" AND vo = "local"'),
        ("transfers", 'state = "FINISHED"'),
        ("transfers", 'vo = "local"'),
        ("records", 'type = "job"'),
        ("records", 'vo = "local"'),
        ("records", 'type = "data_operation"'),
    ],
    indirect=["listing"],
)
def test_a_documented_filter_chooses(
    me: Stranger, listing: Listing, text: str, things: dict[str, Any]
) -> None:
    found = listing.items(listing.page(me, page_size=1000, filter=text))
    assert found
    assert all(_fits(item, text) for item in found)
    mine = things.get({"jobs": "jobs", "transfer_jobs": "transfers"}.get(listing.field, ""), [])
    assert [item.name for item in found if item.name in mine] == mine[::-1]


def _fits(item: Any, text: str) -> bool:
    if isinstance(item, job_pb2.Job) and "state" in text and item.state != job_pb2.JOB_STATE_DONE:
        return False
    if isinstance(item, transfer_job_pb2.TransferJob) and "state" in text:
        return item.state == transfer_job_pb2.TRANSFER_JOB_STATE_FINISHED
    if "type" in text:
        return bool(item.HasField("job_usage" if '"job"' in text else "data_operation"))
    return bool(item.vo == "local")


def test_records_of_one_job(me: Stranger, listings: dict[str, Listing], things: Any) -> None:
    job = things["jobs"][1]
    (record,) = listings["records"].page(me, filter=f'job = "{job}"').records
    assert record.job == job
    assert not listings["records"].page(me, filter=f'job = "jobs/{NOBODYS}"').records


def test_transfers_of_a_job_are_found_by_its_tag(me: Stranger, folder: str) -> None:
    me.put(f"{folder}/in", b"x")
    inputs = [job_pb2.JobInput(path="in", source=f"{folder}/in")]
    job = me.done("cat", "in", inputs=inputs)
    uuid = job.name.removeprefix("jobs/")
    asked = transfer_service_pb2.ListTransferJobsRequest(filter=f'tags.gridlane.job = "{uuid}"')
    found = me.call(me.transfers.ListTransferJobs, asked).transfer_jobs
    assert [transfer.name for transfer in found] == [job.stage_in_transfer]
    described = me.call(me.tasks.DescribeTask, task_service_pb2.DescribeTaskRequest(name=job.name))
    assert [transfer.name for transfer in described.transfer_jobs] == [job.stage_in_transfer]


@pytest.mark.parametrize("listing", FILTERED, indirect=True)
@pytest.mark.parametrize(
    "text",
    [
        'owner = "me"',
        'state = "NONSENSE"',
        'vo = "a" OR vo = "b"',
        'NOT vo = "a"',
        'vo != "a"',
        'vo > "a"',
        "vo =",
        'vo "a"',
        'tags.run = "7"',
        'vo = "a" AND vo = "b"',
        "\x00",
    ],
)
def test_a_filter_that_is_not_documented_is_refused(
    me: Stranger, listing: Listing, text: str
) -> None:
    refusal = me.refused(listing.method, listing.asked(filter=text))
    assert refusal.short == ("INVALID_ARGUMENT", "FILTER_UNSUPPORTED")
    assert refusal.metadata["filter"] == text
