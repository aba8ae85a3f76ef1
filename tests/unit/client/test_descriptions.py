"""Jobs, transfers, names and checksums from Python's own values."""

import hashlib
import zlib
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import gridlane
from gridlane.checksums import checksum_of, digest_for, format_checksum, parse_checksum
from gridlane.names import job_name, transfer_name
from gridlane.transfer.v1.transfer_job_pb2 import OverwriteMode

ID = "01930000-0000-7000-8000-000000000000"


def test_a_commands_text_is_split_as_a_shell_would() -> None:
    job = gridlane.new_job("python3 'my script.py' --out=a\\ b")
    assert list(job.description.executors[0].command) == ["python3", "my script.py", "--out=a b"]


def test_a_commands_list_is_taken_as_it_is() -> None:
    job = gridlane.new_job([Path("/bin/echo"), "$HOME; rm -rf /"])
    assert list(job.description.executors[0].command) == ["/bin/echo", "$HOME; rm -rf /"]


@pytest.mark.parametrize("command", ["", "   ", [], [""], "unclosed 'quote"])
def test_what_is_no_command_is_refused(command: str | list[str]) -> None:
    with pytest.raises(ValueError, match=r"command|quotation"):
        gridlane.new_job(command)


@pytest.mark.parametrize("walltime", [90, 90.0, timedelta(minutes=1, seconds=30)])
def test_a_walltime_is_seconds_or_a_timedelta(walltime: float | timedelta) -> None:
    job = gridlane.new_job("true", walltime=walltime)
    assert job.description.resources.walltime.seconds == 90


def test_a_walltime_of_nothing_is_refused_and_none_is_the_servers() -> None:
    with pytest.raises(ValueError, match="walltime 0"):
        gridlane.new_job("true", walltime=0)
    assert not gridlane.new_job("true").description.resources.HasField("walltime")


def test_files_are_mappings_or_messages() -> None:
    job = gridlane.new_job(
        "true",
        inputs=[gridlane.new_input("a", "LFN:/local/a", "adler32:1")],
        outputs={"b": "LFN:/local/b"},
    )
    assert format_checksum(job.description.inputs[0].checksum) == "ADLER32:00000001"
    assert job.description.outputs[0].target == "LFN:/local/b"


def test_priority_0_is_not_the_default() -> None:
    assert gridlane.new_job("true", priority=0).description.HasField("priority")
    assert not gridlane.new_job("true").description.HasField("priority")


def test_a_transfer_replaces_nothing_unless_asked() -> None:
    files = {"LFN:/local/a": "LFN:/local/b"}
    never, always = OverwriteMode.OVERWRITE_MODE_NEVER, OverwriteMode.OVERWRITE_MODE_ALWAYS
    assert gridlane.new_transfer(files).overwrite == never
    assert gridlane.new_transfer(files, overwrite=True).overwrite == always
    sized = gridlane.new_file("LFN:/local/a", "LFN:/local/b", size_bytes=0)
    assert gridlane.new_transfer([sized]).files[0].HasField("size_bytes")


@pytest.mark.parametrize("text", [f"jobs/{ID}", f"tasks/{ID}", ID, ID.upper(), f" jobs/{ID} "])
def test_a_job_is_named_in_full_or_by_its_id(text: str) -> None:
    assert job_name(text) == f"jobs/{ID}"


@pytest.mark.parametrize("text", ["", "jobs/", f"transfers/{ID}", f"jobs/{ID}/x", "12", f"{ID}0"])
def test_what_names_no_job_is_refused_before_it_is_sent(text: str) -> None:
    with pytest.raises(ValueError, match="jobs/<uuid>"):
        job_name(text)


def test_a_transfer_is_not_named_as_a_job() -> None:
    assert transfer_name(ID) == f"transfers/{ID}"
    with pytest.raises(ValueError, match="transfers/<uuid>"):
        transfer_name(f"jobs/{ID}")


@given(st.binary(max_size=5_000))
def test_digests_are_those_of_the_standard_library(content: bytes) -> None:
    for text in (
        f"ADLER32:{zlib.adler32(content):08x}",
        f"MD5:{hashlib.md5(content, usedforsecurity=False).hexdigest()}",
        f"SHA1:{hashlib.sha1(content, usedforsecurity=False).hexdigest()}",
        f"SHA256:{hashlib.sha256(content).hexdigest()}",
    ):
        checksum = parse_checksum(text)
        digest = digest_for(checksum)
        assert digest is not None
        digest.update(content[: len(content) // 2])
        digest.update(content[len(content) // 2 :])
        assert digest.hexdigest() == checksum.value
        assert format_checksum(checksum) == text


@pytest.mark.parametrize(
    "text",
    ["", "12345678", "CRC64:0", "ADLER32:", "ADLER32:xyz", "ADLER32:123456789", "MD5:1234"],
)
def test_what_is_no_checksum_is_refused_by_name(text: str) -> None:
    with pytest.raises(ValueError, match="checksum"):
        parse_checksum(text)


def test_a_checksum_that_is_not_computed_here_is_carried(tmp_path: Path) -> None:
    assert digest_for(parse_checksum("CRC32C:e3069283")) is None
    (tmp_path / "empty").touch()
    assert format_checksum(checksum_of(tmp_path / "empty")) == "ADLER32:00000001"
