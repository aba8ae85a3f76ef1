"""How far transfers are, as people see it: rate, time left, and the exit code."""

import io
from collections.abc import Callable, Iterator
from typing import Any

import grpc
import pytest

import gridlane
from gridlane.cli import terminal
from gridlane.cli.exit_codes import ExitCode, exit_code_of_transfer
from gridlane.cli.lists import format_of
from gridlane.cli.pace import Pace
from gridlane.cli.transfer_follow import follow, text_of
from gridlane.cli.transfer_lists import read_files
from gridlane.nouns.transfer_methods import BATCH_GET
from gridlane.transfer.v1 import transfer_job_pb2 as pb
from gridlane.transfer.v1 import transfer_service_pb2 as rpc
from gridlane.type.v1 import failure_pb2

MIB = 1 << 20
Server = Any  # the conftest's ScriptedServer
Refuse = Callable[..., None]


@pytest.fixture(autouse=True)
def streams() -> Iterator[None]:
    """The test's own standard streams, not those that another test has seen."""
    terminal.out.cache_clear()
    terminal.err.cache_clear()
    yield
    terminal.out.cache_clear()
    terminal.err.cache_clear()


def job(ended: int, files: int, moved: int, total: int) -> pb.TransferJob:
    counts = [
        pb.FileStateCount(state=pb.FILE_TRANSFER_STATE_FINISHED, count=ended),
        pb.FileStateCount(state=pb.FILE_TRANSFER_STATE_ACTIVE, count=files - ended),
    ]
    return pb.TransferJob(
        file_count=files, summary=counts, transferred_bytes=moved, total_bytes=total
    )


def test_a_rate_gives_the_time_that_is_left() -> None:
    pace = Pace()
    pace.take(100.0, 0)
    assert (pace.rate, pace.left_s(10 * MIB)) == (0.0, None)
    pace.take(102.0, 4 * MIB)
    assert pace.rate == 2 * MIB
    assert pace.left_s(10 * MIB) == 3.0
    told = text_of([job(1, 3, 4 * MIB, 10 * MIB)], pace)
    assert told == "1 of 3 files  4.0 MiB of 10.0 MiB  2.0 MiB/s  3.00 s left"


def test_the_rate_is_that_of_the_last_seconds() -> None:
    pace = Pace()
    for second in range(60):
        pace.take(float(second), second * MIB if second < 30 else 30 * MIB)
    assert pace.rate == 0.0


def test_where_sizes_are_not_known_there_is_no_time_left() -> None:
    pace = Pace()
    pace.take(0.0, 0)
    pace.take(1.0, MIB)
    assert text_of([job(0, 1, MIB, 0)], pace) == "0 of 1 files  1.0 MiB  1.0 MiB/s"


@pytest.mark.parametrize(
    ("state", "failure", "code"),
    [
        ("FINISHED", "UNSPECIFIED", ExitCode.OK),
        ("PARTIALLY_FINISHED", "SOURCE_MISSING", ExitCode.BAD_INPUT),
        ("FAILED", "TARGET_EXISTS", ExitCode.CANNOT_CREATE),
        ("CANCELED", "CANCELED", ExitCode.CANCELLED),
    ],
)
def test_a_transfer_that_has_ended_has_its_exit_code(
    state: str, failure: str, code: ExitCode
) -> None:
    ended = pb.TransferJob(state=pb.TransferJobState.Value(f"TRANSFER_JOB_STATE_{state}"))
    number = failure_pb2.FailureClass.Value(f"FAILURE_CLASS_{failure}")
    if number:
        ended.failure.failure_class = number
    assert exit_code_of_transfer(ended) == code


def test_a_list_may_have_no_header() -> None:
    lines = io.StringIO("file:///a,file:///b\n\nLFN:/c/d,LFN:/e/f\n", newline="")
    found = [(file.source, file.target) for _, file in read_files(lines, "x.csv", "csv")]
    assert found == [("file:///a", "file:///b"), ("LFN:/c/d", "LFN:/e/f")]


def test_lists_say_what_the_bytes_must_be() -> None:
    line = '{"source": "a:b", "target": "c:d", "checksum": "ADLER32:0a1b2c3d", "size_bytes": "7"}'
    ((_, file),) = read_files(io.StringIO(line), "x", "jsonl")
    assert (file.checksum.value, file.size_bytes) == ("0a1b2c3d", 7)
    table = "source,target,size_bytes,checksum\na:b,c:d,9,MD5:d41d8cd98f00b204e9800998ecf8427e\n"
    ((_, file),) = read_files(io.StringIO(table, newline=""), "x", "csv")
    assert (file.size_bytes, file.checksum.value[:4]) == (9, "d41d")


@pytest.mark.parametrize(
    ("written", "text", "said"),
    [
        ("jsonl", "[]\n", "line 1: no JSON object"),
        ("jsonl", '\n{"source": \n', "line 2: no JSON"),
        ("jsonl", '{"source": "a:b", "target": "c:d", "colour": 1}', "line 1"),
        ("csv", "a:b,c:d,e:f\n", "line 1: more cells than columns"),
        ("csv", "source,target,size_bytes\na:b,c:d,much\n", "line 2"),
    ],
)
def test_the_line_that_is_wrong_is_named(written: str, text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        list(read_files(io.StringIO(text, newline=""), "x", format_of(f"x.{written}", None)))


def test_the_form_of_a_list_is_said_or_seen() -> None:
    assert (format_of("a.NDJSON", None), format_of("a.txt", "csv")) == ("jsonl", "csv")
    with pytest.raises(ValueError, match="--format"):
        format_of("standard input", None)


def test_a_job_is_waited_for_over_a_restart_of_the_server(
    scripted: Server, refuse: Refuse, capsys: pytest.CaptureFixture[str]
) -> None:
    answers = ["ACTIVE", "away", "away", "FINISHED"]

    def answer(request: Any, context: grpc.ServicerContext) -> rpc.BatchGetTransferJobsResponse:
        word = answers.pop(0)
        if word == "away":
            refuse(context, grpc.StatusCode.UNAVAILABLE)
        response = rpc.BatchGetTransferJobsResponse()
        job = response.results.add().transfer_job
        job.name = request.names[0]
        job.state = pb.TransferJobState.Value(f"TRANSFER_JOB_STATE_{word}")
        return response

    scripted.unary(BATCH_GET, answer)
    name = "transfers/01a20343-0486-7398-bb00-071eaf29d06e"
    with gridlane.Client(
        scripted.address, token="t", retry=gridlane.RetryPolicy(max_attempts=1)
    ) as c:
        assert follow(c, [name], "text") == ExitCode.OK
    assert name in capsys.readouterr().out


def test_a_server_that_never_answered_is_not_waited_for(
    scripted: Server, refuse: Refuse, capsys: pytest.CaptureFixture[str]
) -> None:
    scripted.unary(BATCH_GET, lambda _, context: refuse(context, grpc.StatusCode.UNAVAILABLE))
    name = "transfers/01a20343-0486-7398-bb00-071eaf29d06e"
    with (
        gridlane.Client(
            scripted.address, token="t", retry=gridlane.RetryPolicy(max_attempts=1)
        ) as c,
        pytest.raises(gridlane.Unavailable),
    ):
        follow(c, [name], "text")
    assert f"gridlane transfer watch {name}" in capsys.readouterr().err
