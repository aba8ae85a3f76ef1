"""What every transfer backend does, whatever it moves files between: the promises of
`TransferBackend`, and of each capability that it declares.

A backend that is new is a function here and a line in `BACKENDS`; a kind of storage a line in
`storages.KINDS`, and in `PAIRS` those from and to which it is moved. What only one of them does has
tests of its own beside this suite.
"""

import asyncio
import hashlib
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from certificates import Authority
from mover_ground import LOOPBACK
from storages import KINDS, Kept
from webdav_peers import inside, outside, require_xrootd, run_inside

from gridlane.transfer.v1.backend_pb2 import TransferCapability
from gridlane.type.v1.checksum_pb2 import ChecksumType
from gridlane_transfer.backends.base import FileInfo, Moved, MoveOrder, TransferBackend
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.backends.embedded.webdav.options import HttpOptions
from gridlane_transfer.moving.failures import Failed, FailureClass

pytestmark = pytest.mark.timeout(120)

CONTENT = bytes(range(256)) * 4_321 + b"the end"
OTHER = b"what lay there before"
NAMES = [
    "plain",
    "deep/er/down",
    "a b/c+d",
    "ünï/cödx",
    "dé",
    "50%25 off;x=1#w",
    "y?z&w",
    "-dash",
    "...dots",
]


@asynccontextmanager
async def embedded(http: HttpOptions) -> AsyncIterator[TransferBackend]:
    mover = EmbeddedMover(workers=1, copies_per_worker=2, stall_s=60, http=http)
    await mover.start()
    try:
        yield mover
    finally:
        await mover.stop()


BACKENDS: dict[str, Callable[[HttpOptions], AbstractAsyncContextManager[TransferBackend]]] = {
    "embedded": embedded,
}
PEER = pytest.mark.long
PAIRS = [
    pytest.param(("directory", "directory"), id="directory"),
    pytest.param(("directory", "webdav"), id="directory-webdav"),
    pytest.param(("webdav", "directory"), id="webdav-directory"),
    pytest.param(("webdav", "webdav"), id="webdav"),
    pytest.param(("directory", "webdav-without-move"), id="webdav-without-move"),
    pytest.param(("directory", "nginx"), id="directory-nginx", marks=PEER),
    pytest.param(("nginx", "directory"), id="nginx-directory", marks=PEER),
    pytest.param(("nginx", "webdav"), id="nginx-webdav", marks=PEER),
    pytest.param(("directory", "xrootd"), id="inside-directory-xrootd", marks=[PEER, inside]),
    pytest.param(("xrootd", "xrootd"), id="inside-xrootd", marks=[PEER, inside]),
]


@dataclass
class Between:
    """A backend, and two storages."""

    backend: TransferBackend
    source: Kept
    target: Kept

    def order(self, source: str = "source", target: str = "target", **more: Any) -> MoveOrder:
        order = MoveOrder(
            number=7,
            epoch=1,
            sources=[self.source.at(source)],
            target=self.target.at(target),
            overwrite=False,
            verify_source=True,
            verify_target=True,
            size_bytes=None,
            expected={},
            checksums=["ADLER32"],
            resumed=False,
        )
        return replace(order, **more)

    async def moved(self, **more: Any) -> Moved:
        done = await self.backend.move(self.order(**more))
        assert isinstance(done, Moved), done
        return done

    async def failed(self, **more: Any) -> Failed:
        done = await self.backend.move(self.order(**more))
        assert isinstance(done, Failed), done
        return done


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that servers which give up their rights can reach."""
    with tempfile.TemporaryDirectory(prefix="gridlane-conformance-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture(params=BACKENDS)
async def between(
    request: pytest.FixtureRequest, pair: tuple[str, str], folder: Path
) -> AsyncIterator[Between]:
    authority = Authority()
    roots = authority.write_roots(folder / "roots.pem")
    source, target = (KINDS[kind] for kind in pair)
    http = replace(LOOPBACK, ca_file=str(roots), idle_s=20)
    with source(folder / "a", authority) as a, target(folder / "b", authority) as b:
        async with BACKENDS[request.param](http) as backend:
            schemes = {kept.base_url.partition(":")[0] for kept in (a, b)}
            if not schemes <= backend.protocols:
                pytest.skip(f"{backend.name} does not speak {schemes - backend.protocols}")
            yield Between(backend, a, b)


@outside
@PEER
@pytest.mark.timeout(420)
def test_xrootd() -> None:
    require_xrootd()
    run_inside(__file__, tests=28)


each_pair = pytest.mark.parametrize("pair", PAIRS)
one_pair = pytest.mark.parametrize("pair", [("directory", "directory")], ids=["directory"])


@one_pair
async def test_it_says_what_it_is(between: Between) -> None:
    backend = between.backend
    assert backend.name
    assert backend.capacity() > 0
    assert backend.report().reachable
    assert backend.report().name == backend.name
    assert {f"TRANSFER_CAPABILITY_{one}" for one in backend.capabilities} <= set(
        TransferCapability.keys()
    )
    assert {f"CHECKSUM_TYPE_{one}" for one in backend.checksums} <= set(ChecksumType.keys())
    assert "ADLER32" in backend.checksums


@each_pair
async def test_a_file_is_moved_whole_and_alone(between: Between) -> None:
    lacking = {*between.source.lacking, *between.target.lacking}
    names = [name for name in NAMES if not lacking & {*name}]
    for number, name in enumerate(names, 1):
        between.source.have(name, CONTENT)
        done = await between.moved(source=name, target=f"t/{name}", number=number)
        assert (done.source, done.size_bytes) == (between.source.at(name), len(CONTENT))
        assert done.checksums == {"ADLER32": f"{zlib.adler32(CONTENT):08x}"}
        assert not done.adopted
    assert between.target.files() == {f"t/{name}": CONTENT for name in names}
    assert between.source.files() == dict.fromkeys(names, CONTENT)


@each_pair
async def test_an_empty_file_is_moved(between: Between) -> None:
    between.source.have("source", b"")
    assert (await between.moved(size_bytes=0, expected={"ADLER32": "00000001"})).size_bytes == 0
    assert between.target.files() == {"target": b""}


@each_pair
async def test_each_checksum_that_it_declares_is_computed(between: Between) -> None:
    between.source.have("source", CONTENT)
    known = {
        "ADLER32": f"{zlib.adler32(CONTENT):08x}",
        "MD5": hashlib.md5(CONTENT).hexdigest(),  # noqa: S324
        "SHA1": hashlib.sha1(CONTENT).hexdigest(),  # noqa: S324
        "SHA256": hashlib.sha256(CONTENT).hexdigest(),
    }
    for number, name in enumerate(sorted(between.backend.checksums), 1):
        done = await between.moved(target=name, checksums=[name], number=number)
        assert set(done.checksums) == {name}
        if name in known:
            assert done.checksums[name] == known[name]
            wrong = {name: known[name].translate(str.maketrans("0f", "f0"))}
            if wrong[name] != known[name]:
                failed = await between.failed(target="no", checksums=[name], expected=wrong)
                assert failed.failure_class is FailureClass.CHECKSUM_MISMATCH
    assert "no" not in between.target.files()


@each_pair
async def test_what_is_not_as_promised_is_not_published(between: Between) -> None:
    between.source.have("source", CONTENT)
    wrong: list[dict[str, Any]] = [
        {"expected": {"ADLER32": "00000001"}},
        {"size_bytes": len(CONTENT) - 1},
        {"size_bytes": len(CONTENT) + 1},
    ]
    for promised in wrong:
        failed = await between.failed(**promised)
        assert (failed.failure_class, failed.recoverable) == (
            FailureClass.CHECKSUM_MISMATCH,
            False,
        )
        assert failed.message
    assert between.target.files() == {}


@each_pair
async def test_a_source_that_is_missing_is_told_as_such(between: Between) -> None:
    failed = await between.failed(source="none")
    assert (failed.failure_class, failed.recoverable) == (FailureClass.SOURCE_MISSING, False)
    assert "LFN:/none" in failed.message
    assert between.target.files() == {}


@each_pair
async def test_the_next_source_is_taken(between: Between) -> None:
    there = between.source.have("there", CONTENT)
    done = await between.moved(sources=[between.source.at("none"), there])
    assert done.source == there
    assert between.target.files() == {"target": CONTENT}


@each_pair
async def test_an_existing_target_is_replaced_only_when_that_is_asked_for(between: Between) -> None:
    between.source.have("source", CONTENT)
    between.target.have("target", OTHER)
    failed = await between.failed()
    assert (failed.failure_class, failed.recoverable) == (FailureClass.TARGET_EXISTS, False)
    assert between.target.files() == {"target": OTHER}
    await between.moved(overwrite=True, epoch=2)
    assert between.target.files() == {"target": CONTENT}


@each_pair
async def test_without_leave_nothing_is_published(between: Between) -> None:
    between.source.have("source", CONTENT)

    async def never() -> bool:
        return False

    done = await between.backend.move(between.order(), never)
    assert isinstance(done, Failed)
    assert done.failure_class is FailureClass.CANCELED
    assert between.target.files() == {}


@each_pair
async def test_an_order_that_is_ended_publishes_nothing(between: Between) -> None:
    between.source.have("source", CONTENT)

    async def ended() -> bool:
        between.backend.abort(7)
        return True

    done = await between.backend.move(between.order(), ended)
    assert isinstance(done, Failed)
    assert done.failure_class is FailureClass.CANCELED
    assert between.target.files() == {}
    assert between.backend.progress(7) is None
    between.backend.abort(7)  # of nothing


@each_pair
async def test_what_an_attempt_published_unheard_is_adopted_by_the_next(between: Between) -> None:
    between.source.have("source", CONTENT)
    assert not (await between.moved()).adopted
    again = await between.moved(epoch=2, resumed=True)
    assert (again.adopted, again.size_bytes) == (True, len(CONTENT))
    between.target.have("target", OTHER)
    assert (await between.failed(epoch=3, resumed=True)).failure_class is FailureClass.TARGET_EXISTS
    assert between.target.files() == {"target": OTHER}


@each_pair
async def test_what_an_earlier_attempt_left_is_cleaned_up(between: Between) -> None:
    if "KEEP_FAILED_TARGET" not in between.backend.capabilities:
        pytest.skip("nothing is ever left")
    between.source.have("source", CONTENT)
    await between.failed(expected={"ADLER32": "00000001"}, disable_cleanup=True)
    left = between.target.files()
    await between.backend.clean(between.order(epoch=2))
    # Where there is no temporary name, what was written has the file's own.
    assert between.target.files() == {name: left[name] for name in left if name == "target"}


@each_pair
async def test_a_file_is_told_of_and_removed(between: Between) -> None:
    backend, place = between.backend, between.target.have("deep/x", CONTENT)
    known = await backend.stat(place, ["ADLER32"])
    assert isinstance(known, FileInfo)
    assert known.size_bytes in (len(CONTENT), -1)
    assert known.checksums.get("ADLER32", "") in (f"{zlib.adler32(CONTENT):08x}", "")
    assert known.modify_s is None or abs(known.modify_s - time.time()) < 3600
    folder = await backend.remove(between.target.at("deep"))
    assert isinstance(folder, Failed), "a directory is never removed with what is in it"
    assert await backend.remove(place) is True
    assert await backend.remove(place) is False
    missing = await backend.stat(place)
    assert isinstance(missing, Failed)
    assert missing.failure_class is FailureClass.SOURCE_MISSING
    assert between.target.files() == {}


@each_pair
async def test_more_orders_than_it_has_room_for_are_all_done(between: Between) -> None:
    between.source.have("source", CONTENT)
    count = between.backend.capacity() + 3
    moves: list[Awaitable[Moved]] = [
        between.moved(target=f"many/{number}", number=number) for number in range(1, count + 1)
    ]
    await asyncio.gather(*moves)
    assert between.target.files() == {f"many/{n}": CONTENT for n in range(1, count + 1)}


@each_pair
async def test_the_files_of_a_bundle_end_each_by_itself(between: Between) -> None:
    contents = {n: b"%d" % n * 700 for n in (1, 2, 3, 4)}
    for n in (1, 2, 4):
        between.source.have(f"s{n}", contents[n])

    async def never() -> bool:
        return False

    orders = [
        between.order(source=f"s{n}", target=f"b/{n}", number=n, size_bytes=len(contents[n]))
        for n in contents
    ]
    done = await between.backend.move_bundle(
        [(order, never if order.number == 2 else None) for order in orders]
    )
    classes = [one.failure_class if isinstance(one, Failed) else None for one in done]
    assert classes == [None, FailureClass.CANCELED, FailureClass.SOURCE_MISSING, None]
    assert between.target.files() == {f"b/{n}": contents[n] for n in (1, 4)}


@each_pair
async def test_a_declared_limit_of_bytes_in_a_second_is_kept(between: Between) -> None:
    if "BANDWIDTH_LIMIT" not in between.backend.capabilities:
        pytest.skip("it declares none")
    between.source.have("source", CONTENT)
    begun = time.monotonic()
    await between.moved(max_bytes_per_second=len(CONTENT))
    assert time.monotonic() - begun > 0.7
    assert between.target.files() == {"target": CONTENT}


@each_pair
async def test_several_streams_move_the_same_bytes(between: Between) -> None:
    if "STREAMS" not in between.backend.capabilities:
        pytest.skip("it declares none")
    content = CONTENT * 9
    between.source.have("source", content)
    await between.moved(streams=4)
    assert between.target.files() == {"target": content}


@one_pair
async def test_a_backend_that_stopped_answers(between: Between) -> None:
    between.source.have("source", CONTENT)
    await between.backend.stop()
    failed = await between.failed()
    assert (failed.failure_class, failed.recoverable) == (FailureClass.BACKEND_LOST, True)
    assert between.target.files() == {}
