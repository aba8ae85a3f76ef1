"""Both facades against a real server, over its restart too."""

import asyncio
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support import EmbeddedServer

import gridlane
from gridlane.ids import uuid7
from gridlane.workload.v1.job_pb2 import Job, JobState

StartServer = Callable[..., EmbeddedServer]


def test_a_job_from_submission_to_its_records(client: gridlane.Client, folder: str) -> None:
    client.storage.put(b"a\nb\n", f"{folder}/in")
    job = gridlane.new_job(
        ["sh", "-c", "wc -l < in > out"],
        inputs={"in": f"{folder}/in"},
        outputs={"out": f"{folder}/out"},
    )
    task = client.tasks.wait(client.tasks.submit(job).name, timeout=30)
    assert task.job.state == JobState.JOB_STATE_DONE
    assert {t.name for t in task.transfer_jobs} == {
        task.job.stage_in_transfer,
        task.job.stage_out_transfer,
    }
    assert b"".join(client.storage.read(f"{folder}/out")).strip() == b"2"
    assert not task.missing
    assert client.jobs.get(task.job.name).state == JobState.JOB_STATE_DONE


def test_the_same_request_id_is_the_same_job(client: gridlane.Client) -> None:
    request_id = uuid7()
    job = gridlane.new_job("true")
    first = client.jobs.submit(job, request_id=request_id)
    assert client.jobs.submit(job, request_id=request_id).name == first.name
    with pytest.raises(gridlane.AlreadyExists) as caught:
        client.jobs.submit(gridlane.new_job("false"), request_id=request_id)
    assert caught.value.reason == "REQUEST_ID_REUSED"


def test_a_wrong_request_names_each_field(client: gridlane.Client) -> None:
    job = gridlane.new_job("true", inputs={"../up": "LFN:/local/x", "ok": "no-scheme"})
    with pytest.raises(gridlane.InvalidArgument) as caught:
        client.jobs.submit(job)
    fields = {violation.field for violation in caught.value.violations}
    assert any("inputs[0]" in field for field in fields)
    assert any("inputs[1]" in field for field in fields)
    assert len(caught.value.trace_id) == 32


def test_many_jobs_are_submitted_got_and_listed(client: gridlane.Client) -> None:
    jobs = [gridlane.new_job("true", name=f"many {n}") for n in range(5)]
    twice = gridlane.new_input("same", "LFN:/local/a")
    jobs.insert(2, gridlane.new_job("true", inputs=[twice, twice]))
    results = client.jobs.submit_many(jobs)
    assert isinstance(results[2], gridlane.InvalidArgument)
    names = [result.name for result in results if isinstance(result, Job)]
    assert len(names) == 5
    *got, missing = client.jobs.get_many([*names, uuid7()])
    assert [job.name for job in got if isinstance(job, Job)] == names
    assert isinstance(missing, gridlane.NotFound)
    listed = [job.name for job in client.jobs.list(vo="local", limit=5)]
    assert listed == names[::-1]


def test_a_payloads_output_is_followed_while_it_runs(client: gridlane.Client) -> None:
    job = client.jobs.submit(gridlane.new_job(["sh", "-c", "echo 1; sleep 1; echo 2"]))
    chunks = client.jobs.log(job.name, follow=True, timeout=30)
    came = [(time.monotonic(), chunk) for chunk in chunks]
    assert b"".join(chunk for _, chunk in came) == b"1\n2\n"
    assert came[-1][0] - came[0][0] > 0.5


def test_waiting_has_an_end(client: gridlane.Client) -> None:
    job = client.jobs.submit(gridlane.new_job("sleep 30"))
    try:
        with pytest.raises(gridlane.DeadlineExceeded):
            client.jobs.wait(job.name, timeout=0.5)
        with pytest.raises(gridlane.DeadlineExceeded):
            client.tasks.wait(job.name, timeout=0.5)
    finally:
        client.jobs.kill(job.name)


def test_a_transfer_is_submitted_watched_and_listed(
    client: gridlane.Client, folder: str, tmp_path: Path
) -> None:
    put = client.storage.put(b"moved", f"{folder}/a")
    known = client.storage.stat(f"{folder}/a")
    assert (known.size_bytes, known.checksum, known.url) == (5, put.checksum, put.url)
    made = client.transfers.submit(gridlane.new_transfer({f"{folder}/a": f"{folder}/b"}))
    ended = client.transfers.wait(made.name, timeout=30)
    assert [file.transferred_bytes for file in ended.files] == [5]
    assert [file.name for file in client.transfers.files(made.name)] == [ended.files[0].name]
    assert list(client.transfers.events(made.name))
    assert made.name in [transfer.name for transfer in client.transfers.list(limit=20)]
    client.storage.get(f"{folder}/b", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"moved"
    resolved, unknown = client.replicas.resolve([f"{folder}/b", f"{folder}/none"])
    assert not isinstance(resolved, gridlane.GridlaneError)
    assert isinstance(unknown, gridlane.NotFound)


async def test_copies_are_registered_and_taken_out_in_numbers(
    embedded_server: EmbeddedServer, folder: str
) -> None:
    async with gridlane.AsyncClient(embedded_server.address, token=embedded_server.token) as client:
        stored = [await client.storage.put(b"a\n", f"{folder}/{n}") for n in range(3)]
        pairs = [(one.lfn, one.url) for one in stored]
        assert await client.replicas.unregister_many(pairs) == [None] * 3
        gone = await client.replicas.unregister_many(pairs[:1])
        assert isinstance(gone[0], gridlane.NotFound)
        await client.replicas.unregister(*pairs[0], missing_ok=True)
        copies = [
            gridlane.new_replica(
                lfn, url, size_bytes=2, checksum="ADLER32:00cd006c", guid=gridlane.uuid7()
            )
            for lfn, url in pairs
        ]
        results = await client.replicas.register_many([*copies, copies[0]])
        assert [one.guid for one in results if not isinstance(one, gridlane.GridlaneError)] == [
            *(copy.guid for copy in copies),
            copies[0].guid,
        ]


async def test_backends_tell_what_they_can(
    client: gridlane.Client, embedded_server: EmbeddedServer
) -> None:
    (backend,) = client.backends.list()
    assert (backend.name, backend.reachable) == ("transferBackends/embedded", True)
    assert list(client.backends.drift("embedded")) == []
    with pytest.raises(gridlane.FailedPrecondition):
        client.backends.push("embedded")
    async with gridlane.AsyncClient(embedded_server.address, token=embedded_server.token) as other:
        assert (await other.backends.get("embedded")).capabilities == backend.capabilities


async def test_the_asynchronous_facade_does_the_same(
    embedded_server: EmbeddedServer, folder: str, tmp_path: Path
) -> None:
    async with gridlane.AsyncClient(embedded_server.address, token=embedded_server.token) as client:
        await client.storage.put(b"a\n", f"{folder}/in")
        job = gridlane.new_job("cp in out", inputs={"in": f"{folder}/in"})
        submitted = await client.tasks.submit(job)

        async def watch() -> list[str]:
            return [event.WhichOneof("event") or "" async for event in client.tasks.watch(name)]

        name = submitted.name
        kinds, task = await asyncio.gather(watch(), client.tasks.wait(name, timeout=30))
        assert task.job.state == JobState.JOB_STATE_DONE
        assert {"job", "transfer"} <= set(kinds)
        assert name.rpartition("/")[2] in [
            job.name.rpartition("/")[2] async for job in client.jobs.list(limit=50)
        ]
        await client.storage.get(f"{folder}/in", tmp_path / "in")
        assert (await client.whoami()).principal.vos
        assert (await client.ping()).services


def test_a_watch_goes_on_over_the_servers_death_and_return(start_server: StartServer) -> None:
    server = start_server()
    server.port = int(server.address.rpartition(":")[2])
    with gridlane.Client(server.address, token=server.token) as client:
        job = client.jobs.submit(gridlane.new_job("sleep 3"))
        seen: list[str] = []

        def watch() -> None:
            for event in client.jobs.watch(job.name, timeout=60):
                seen.append(event.event_id)
                if event.state == JobState.JOB_STATE_DONE:
                    return

        thread = threading.Thread(target=watch)
        thread.start()
        while len(seen) < 3:
            time.sleep(0.01)
        server.kill()
        server.start()
        thread.join(60)
        assert not thread.is_alive()
        assert seen == [event.event_id for event in client.jobs.events(job.name)]
