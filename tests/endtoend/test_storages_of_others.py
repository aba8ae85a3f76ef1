"""A real file on its way round: into the server, to nginx, to one XRootD, from there to another one
without passing the server, and back; compared byte by byte wherever it lies.
"""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority
from support import EmbeddedServer
from webdav_peers import (
    Peer,
    inside,
    nginx,
    outside,
    require_nginx,
    require_xrootd,
    run_inside,
    xrootd,
)

import gridlane
from gridlane.transfer.v1.storage_element_pb2 import StorageElement
from gridlane.transfer.v1.transfer_job_pb2 import (
    TRANSFER_JOB_STATE_FINISHED,
    FileTransfer,
    TransferJob,
)

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(420),
    pytest.mark.one_process("what the mover does is the same in both shapes"),
]
CONTENT = os.urandom(1 << 20) * 37 + b"the end"
WAIT_S = 60
CARRIED = "TPC_PullRequest: event=TRANSFER_SUCCESS"
"""What XRootD writes into its log when it has fetched a file from another storage."""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A directory that servers which give up their rights can reach."""
    with tempfile.TemporaryDirectory(prefix="gridlane-round-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def server(tmp_path: Path, folder: Path) -> Iterator[EmbeddedServer]:
    """A server that may reach this machine's storages."""
    http = {"allowed_networks": ["127.0.0.0/8", "::1/128"], "ca_file": str(folder / "roots.pem")}
    made = EmbeddedServer(tmp_path, {"GRIDLANE_TRANSFER_HTTP": json.dumps(http)})
    try:
        yield made
    finally:
        made.close()


@outside
def test_a_file_goes_round() -> None:
    require_nginx()
    require_xrootd()
    run_inside(__file__, tests=1)


@inside
def test_inside_a_file_goes_round(server: EmbeddedServer, folder: Path, tmp_path: Path) -> None:
    authority = Authority()
    authority.write_roots(folder / "roots.pem")
    with (
        nginx(folder / "nginx") as web,
        xrootd(folder / "one", authority) as one,
        xrootd(folder / "two", authority) as two,
    ):
        server.start()
        with gridlane.Client(server.address, token_file=server.token_file) as client:
            for name, peer in (("web", web), ("one", one), ("two", two)):
                make(client, name, peer)
            client.storage.put(CONTENT, "LFN:/local/round/source")
            way = ["LFN:/local/round/source"]
            for peer in (web, one, two):
                way.append(f"{peer.url}/local/round/{len(way)}")
                moved(client, way[-2], way[-1])
                assert (peer.root / f"local/round/{len(way) - 1}").read_bytes() == CONTENT
            moved(client, way[-1], "LFN:/local/round/back")
            client.storage.get("LFN:/local/round/back", tmp_path / "back")
            assert (tmp_path / "back").read_bytes() == CONTENT
            assert CARRIED in two.log.read_text(errors="replace")
            assert CARRIED not in one.log.read_text(errors="replace")
            for peer, url in zip((web, one, two), way[1:], strict=True):
                assert b"".join(client.storage.read(url)) == CONTENT
                client.storage.delete(url)
                assert [path for path in peer.root.rglob("*") if path.is_file()] == []


def make(client: gridlane.Client, name: str, peer: Peer) -> None:
    element = StorageElement(vo_paths={"local": "/local"})
    element.endpoints.add(base_url=peer.url)
    client.storage_settings.create(name, element)


def moved(client: gridlane.Client, source: str, target: str) -> None:
    files = [FileTransfer(source=source, target=target)]
    job = client.transfers.submit(TransferJob(files=files, max_retries=0))
    ended = client.transfers.wait(job.name, timeout=WAIT_S)
    assert ended.state == TRANSFER_JOB_STATE_FINISHED, ended.files
