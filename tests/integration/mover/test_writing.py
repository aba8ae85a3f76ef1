"""Files are put onto a WebDAV storage: whole, verified, under their name at once or not at all."""

import threading
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import pytest
from mover_ground import CONTENT, Ground, adler
from webdav_server import Fault

from gridlane_transfer.backends.embedded import copying
from gridlane_transfer.backends.embedded.copying import temporary_name
from gridlane_transfer.backends.embedded.opening import Ends
from gridlane_transfer.backends.embedded.webdav.connections import Connection
from gridlane_transfer.backends.embedded.webdav.writing import RemoteTarget
from gridlane_transfer.moving.failures import FailureClass

NAME = "new/deep/target"


def test_a_file_is_put_with_its_directories(ground: Ground) -> None:
    target = ground.remote(ground.a, NAME)
    done = ground.copy(ground.put(), target)
    assert done.checksums == {"ADLER32": adler(CONTENT)}
    assert ground.a.path(NAME).read_bytes() == CONTENT
    assert ground.a.files() == [NAME]
    assert ground.control.asked == 1


@pytest.mark.parametrize("content", [b"", b"x"])
def test_a_small_file_is_put(ground: Ground, content: bytes) -> None:
    ground.copy(ground.put(content=content), ground.remote(ground.a, "target"))
    assert ground.a.path("target").read_bytes() == content


def test_nobody_sees_a_file_before_it_is_whole(ground: Ground) -> None:
    seen: list[list[str]] = []
    ground.a.after_put = lambda path: seen.append(ground.a.files())
    ground.copy(ground.put(), ground.remote(ground.a, "target"))
    assert seen == [[temporary_name(7, 3)]]
    assert ground.a.files() == ["target"]


def test_a_storage_that_tells_no_checksums_is_read_back(ground: Ground) -> None:
    ground.a.digests = False
    ground.copy(ground.put(), ground.remote(ground.a, "target"))
    assert ground.a.count("GET") == 1
    ground.a.digests = True
    ground.copy(ground.put(), ground.remote(ground.a, "other"))
    assert ground.a.count("GET") == 1


def test_a_storage_that_damages_bytes_is_found_out(ground: Ground) -> None:
    def damage(path: Path) -> None:
        path.write_bytes(path.read_bytes()[:-1] + b"!")

    ground.a.after_put = damage
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    assert failed.failure_class is FailureClass.CHECKSUM_MISMATCH
    assert ground.a.files() == []


def test_a_storage_that_loses_the_end_is_found_out(ground: Ground) -> None:
    def lose(path: Path) -> None:
        path.write_bytes(CONTENT[:-1])

    ground.a.after_put = lose
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    assert "bytes" in failed.message
    assert ground.a.files() == []


def test_an_existing_file_is_replaced_only_when_that_is_asked_for(ground: Ground) -> None:
    ground.have(ground.a, "target", b"before")
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    assert failed.failure_class is FailureClass.TARGET_EXISTS
    assert not failed.recoverable
    assert ground.a.count("PUT") == 0
    ground.copy(ground.put(), ground.remote(ground.a, "target"), overwrite=True)
    assert ground.a.path("target").read_bytes() == CONTENT


@pytest.mark.parametrize("strict", [False, True])
def test_a_directory_is_never_replaced_by_a_file(ground: Ground, strict: bool) -> None:
    """MOVE onto a directory would remove all that is in it."""
    ground.have(ground.a, "target/precious", b"kept")
    ends = ground.put(), ground.remote(ground.a, "target")
    failed = ground.failure(*ends, overwrite=True, strict_copy=strict)
    assert (failed.failure_class, failed.recoverable) == (FailureClass.TARGET_UNWRITABLE, False)
    assert ground.a.files() == ["target/precious"]


def test_a_file_that_appears_meanwhile_is_not_replaced(ground: Ground) -> None:
    def come(path: Path) -> None:
        ground.a.path("target").write_bytes(b"theirs")

    ground.a.after_put = come
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    assert failed.failure_class is FailureClass.TARGET_EXISTS
    assert ground.a.files() == ["target"]
    assert ground.a.path("target").read_bytes() == b"theirs"


@pytest.mark.parametrize("kind", ["reset", "stall"])
def test_a_put_that_breaks_leaves_nothing(ground: Ground, kind: str) -> None:
    ground.a.faults = [Fault("PUT", kind, after=1 << 20)]
    failed = ground.failure(ground.put(content=CONTENT * 20), ground.remote(ground.a, "target"))
    assert failed.recoverable
    assert failed.failure_class in (FailureClass.BACKEND_LOST, FailureClass.TIMED_OUT)
    ground.a.released.set()
    assert ground.a.files() == []


def test_a_storage_that_runs_full_says_so(ground: Ground) -> None:
    ground.a.faults = [Fault("PUT", "full", after=1 << 20)]
    failed = ground.failure(ground.put(content=CONTENT * 4), ground.remote(ground.a, "target"))
    assert (failed.failure_class, failed.recoverable) == (FailureClass.NO_SPACE, False)
    assert "no room" in failed.message
    assert ground.a.files() == []


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (403, FailureClass.TARGET_UNWRITABLE),
        (413, FailureClass.NO_SPACE),
        (507, FailureClass.NO_SPACE),
        (503, FailureClass.TARGET_UNWRITABLE),
    ],
)
@pytest.mark.parametrize("method", ["PUT", "MOVE"])
def test_a_refusal_is_told_and_leaves_nothing(
    ground: Ground, method: str, status: int, name: FailureClass
) -> None:
    # The first MOVE finds out whether the storage knows the verb at all.
    ground.copy(ground.put(), ground.remote(ground.a, "before"))
    ground.a.faults = [Fault(method, "status", status=status, times=2)]
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    assert failed.failure_class is name
    assert f"HTTP {status}" in failed.message
    assert ground.a.files() == ["before"]


def test_a_put_that_is_stopped_leaves_nothing(ground: Ground) -> None:
    ground.a.faults = [Fault("PUT", "stall", after=1 << 20)]
    ground.options = replace(ground.options, idle_s=60)
    timer = threading.Timer(0.3, ground.control.stop)
    timer.start()
    failed = ground.failure(ground.put(content=CONTENT * 20), ground.remote(ground.a, "target"))
    assert failed.failure_class is FailureClass.CANCELED
    assert ground.a.files() == []


def test_what_failed_stays_when_that_is_asked_for(ground: Ground) -> None:
    ground.a.faults = [Fault("PUT", "reset", after=1 << 20)]
    ground.failure(ground.put(), ground.remote(ground.a, "target"), disable_cleanup=True)
    assert ground.a.files() == [temporary_name(7, 3)]


@pytest.mark.parametrize("kind", ["unheard", "reset"])
def test_a_move_whose_answer_is_lost_is_found_out(ground: Ground, kind: str) -> None:
    # The first MOVE finds out whether the storage knows the verb at all.
    ground.a.faults = [Fault("MOVE", kind)]
    ground.copy(ground.put(), ground.remote(ground.a, "target"))
    assert ground.a.path("target").read_bytes() == CONTENT
    assert ground.a.files() == ["target"]


def test_earlier_attempts_are_cleaned_up_after(ground: Ground) -> None:
    ground.have(ground.a, temporary_name(7, 2), b"half")
    ground.have(ground.a, temporary_name(8, 2), b"another's")
    ground.copy(ground.put(), ground.remote(ground.a, "target"))
    assert ground.a.files() == [temporary_name(8, 2), "target"]


def test_an_attempt_that_was_overtaken_publishes_nothing(ground: Ground) -> None:
    """An epoch that was paused when its bytes were whole goes on after a later one is done."""
    later: list[object] = []

    def overtake(path: Path) -> None:
        ground.a.after_put = lambda path: None
        task = ground.task(ground.put("later"), ground.remote(ground.a, "target"), epoch=4)
        later.append(copying.copy(task, ground.control, Ends(ground.options)))

    ground.a.after_put = overtake
    failed = ground.failure(ground.put(content=b"old"), ground.remote(ground.a, "target"))
    assert len(later) == 1
    assert failed.recoverable
    assert ground.a.path("target").read_bytes() == CONTENT
    assert ground.a.files() == ["target"]


def test_a_source_that_grows_sends_no_byte_more_than_announced(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The storage would take them for requests of ours."""
    source = ground.put()
    real = RemoteTarget.begin

    def grow(target: RemoteTarget, size: int | None, *, overwrite: bool) -> None:
        real(target, size, overwrite=overwrite)
        with (ground.folder / "source").open("ab") as file:
            file.write(b"DELETE /precious HTTP/1.1\r\nHost: x\r\n\r\n")

    monkeypatch.setattr(RemoteTarget, "begin", grow)
    sent: list[bytes] = []
    really = Connection.send

    def send(connection: Connection, data: bytes | memoryview) -> None:
        sent.append(bytes(data))
        really(connection, data)

    monkeypatch.setattr(Connection, "send", send)
    ground.have(ground.a, "precious")
    failed = ground.failure(source, ground.remote(ground.a, "target"))
    assert failed.recoverable
    assert "changed" in failed.message
    assert not any(b"DELETE /precious" in data for data in sent)
    assert ground.a.files() == ["precious"]


def test_without_leave_nothing_is_published(ground: Ground) -> None:
    ground.control.allows = False
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    assert failed.failure_class is FailureClass.CANCELED
    assert ground.a.files() == []


def test_an_attempt_after_a_lost_one_takes_its_target_for_done(ground: Ground) -> None:
    source, target = ground.put(), ground.remote(ground.a, "target")
    ground.copy(source, target)
    assert ground.copy(source, target, resumed=True).checksums == {"ADLER32": adler(CONTENT)}
    assert ground.a.count("PUT") == 1
    ground.a.path("target").write_bytes(b"theirs")
    failed = ground.failure(source, target, resumed=True)
    assert failed.failure_class is FailureClass.TARGET_EXISTS


def test_a_storage_without_move_gets_the_bytes_at_their_name(ground: Ground) -> None:
    ground.a.moves = False
    ground.copy(ground.put(), ground.remote(ground.a, NAME))
    assert ground.a.files() == [NAME]
    (put,) = [one for one in ground.a.heard if one.method == "PUT" and one.status == 201]
    assert put.headers["If-None-Match"] == "*"
    assert ground.control.asked >= 1


def test_a_storage_without_move_is_not_asked_without_leave(ground: Ground) -> None:
    ground.a.moves = False
    ground.control.allows = False
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    assert failed.failure_class is FailureClass.CANCELED
    assert ground.a.count("PUT") == 0


def test_a_storage_without_move_keeps_what_came_first(ground: Ground) -> None:
    ground.a.moves = False
    ground.have(ground.a, "target", b"theirs")
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"), strict_copy=True)
    assert failed.failure_class is FailureClass.TARGET_EXISTS
    assert ground.a.path("target").read_bytes() == b"theirs"
    ground.copy(ground.put(), ground.remote(ground.a, "target"), overwrite=True)
    assert ground.a.path("target").read_bytes() == CONTENT


def test_a_strict_copy_asks_and_makes_nothing(ground: Ground) -> None:
    strict = {"strict_copy": True, "verify_source": False, "verify_target": False}
    ground.copy(ground.put(), ground.remote(ground.a, "target"), **strict)
    methods = {one.method for one in ground.a.heard}
    assert methods == {"DELETE", "MOVE", "PUT"}
    failed = ground.failure(ground.put(), ground.remote(ground.a, NAME), **strict)
    assert failed.failure_class is FailureClass.TARGET_UNWRITABLE
    assert ground.a.count("MKCOL") == 0


def test_a_put_is_led_to_where_the_bytes_go(ground: Ground) -> None:
    """As dCache does: the answer to the head of a PUT names the server that takes the body."""
    at = f"{ground.b.url}/{temporary_name(7, 3)}"
    ground.a.faults = [Fault("PUT", "redirect", location=at)]
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    # It went to b, where a does not see it: found out before anything is published.
    assert ground.b.path(temporary_name(7, 3)).read_bytes() == CONTENT
    assert failed.recoverable
    assert ground.a.files() == []


def test_a_file_moves_from_one_storage_to_another_through_the_mover(ground: Ground) -> None:
    options = replace(ground.options, third_party=False)
    ground.options = options
    ground.copy(ground.have(ground.a), ground.remote(ground.b, NAME), streams=2)
    assert ground.b.path(NAME).read_bytes() == CONTENT
    assert ground.a.count("COPY") + ground.b.count("COPY") == 0


@pytest.mark.parametrize("folder", ["", "deep/c d/"])
@pytest.mark.parametrize("overwrite", [True, False])
def test_a_storage_that_reads_escapes_as_letters_gets_the_right_name(
    ground: Ground, overwrite: bool, folder: str
) -> None:
    """As XRootD does with the `Destination` of MOVE."""
    ground.a.unescapes = False
    name = f"{folder}a b+50% ünï#x"
    if overwrite:
        ground.have(ground.a, name, b"what lay there before")
    target = ground.remote(ground.a, quote(name))
    ground.copy(ground.put(), target, overwrite=overwrite)
    assert ground.a.files() == [name]
    assert ground.a.path(name).read_bytes() == CONTENT
    taken = ground.failure(ground.put("other", b"other"), target)
    assert taken.failure_class is FailureClass.TARGET_EXISTS
    assert ground.a.files() == [name]


@pytest.mark.parametrize("name", ["dé", "a ", "a?b", "c?d/e"])
def test_a_name_that_such_a_storage_cannot_give_is_refused(ground: Ground, name: str) -> None:
    ground.a.unescapes = False
    failed = ground.failure(ground.put(), ground.remote(ground.a, quote(name)))
    assert (failed.failure_class, failed.recoverable) == (FailureClass.TARGET_UNWRITABLE, False)
    assert failed.cure
    assert ground.a.files() == []


def test_what_a_probe_left_is_cleaned_up(ground: Ground) -> None:
    """Killed while it was found out how the storage reads a name."""
    for left in (".gridlane-7-2.part.probe", ".gridlane-7-2.part%2Eprobe"):
        ground.have(ground.a, left)
    ground.copy(ground.put(), ground.remote(ground.a, "a%20b"))
    assert ground.a.files() == ["a b"]


def test_an_empty_file_is_put_without_waiting_for_leave_to_send_it(ground: Ground) -> None:
    """XRootD never answers a PUT without bytes that expects `100 Continue`."""
    ground.copy(ground.put(content=b""), ground.remote(ground.a, "empty"))
    assert ground.a.files() == ["empty"]
    (put,) = [one for one in ground.a.heard if one.method == "PUT"]
    assert "Expect" not in put.headers
