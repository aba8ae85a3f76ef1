"""Errors that point to the page about their reason, where a deployment has one."""

import subprocess
from collections.abc import Callable, Mapping

import pytest
from support import COMMAND, EmbeddedServer

import gridlane
from gridlane.ids import uuid7
from gridlane.workload.v1.job_pb2 import Executor, Job, JobDescription

PAGE = "https://docs.example.org/gridlane/errors"
ABSENT = "jobs/01939f5e-0000-7000-8000-000000000001"


def refused(server: EmbeddedServer, call: Callable[[gridlane.Client], object]) -> str:
    """Where an error says that more is to be read."""
    with (
        gridlane.Client(server.address, token_file=server.token_file) as client,
        pytest.raises(gridlane.GridlaneError) as caught,
    ):
        call(client)
    assert caught.value.reason
    return caught.value.help_url


def oversized(client: gridlane.Client) -> object:
    """A request with so many faults that what is said of them is cut."""
    tags = {f"{n}" * 300: "" for n in range(40)}
    return client.jobs.submit(Job(description=JobDescription(tags=tags)), request_id="x")


def test_an_error_points_to_its_reason(start_server: Callable[..., EmbeddedServer]) -> None:
    server = start_server({"GRIDLANE_SERVER_ERRORS_PAGE": PAGE})
    assert refused(server, lambda client: client.jobs.get(ABSENT)) == f"{PAGE}#not_found"
    assert refused(server, oversized) == f"{PAGE}#invalid_fields"
    assert refused(server, lambda c: next(iter(c.jobs.watch(ABSENT)))) == f"{PAGE}#not_found"
    old = "01000000-0000-7000-8000-000000000001"
    job = Job(description=JobDescription(executors=[Executor(command=["true"])]))
    too_old = refused(server, lambda client: client.jobs.submit(job, request_id=old))
    assert too_old == f"{PAGE}#request_id_too_old"
    shown = command(server.client_environment, "job", "show", f"jobs/{uuid7()}")
    assert f"more: {PAGE}#not_found" in "".join(shown.stderr.splitlines())


def test_without_a_page_no_error_points_anywhere(
    start_server: Callable[..., EmbeddedServer],
) -> None:
    assert refused(start_server(), lambda client: client.jobs.get(ABSENT)) == ""


def command(environment: Mapping[str, str], *words: str) -> "subprocess.CompletedProcess[str]":
    """Runs the users' command."""
    return subprocess.run(
        [COMMAND.with_name("gridlane"), *words],
        env={"PATH": "/usr/bin:/bin", "COLUMNS": "200", **environment},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
