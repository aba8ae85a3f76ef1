"""Whom the mover speaks to, where it lets itself be led, and who sees a credential."""

import socket
from dataclasses import replace
from pathlib import Path

import pytest
from certificates import Authority
from mover_ground import CONTENT, LOOPBACK, Ground
from webdav_server import Fault, serving

from gridlane_transfer.backends.embedded.places import Place
from gridlane_transfer.backends.embedded.webdav import connections
from gridlane_transfer.backends.embedded.webdav.addresses import Resolved
from gridlane_transfer.moving.failures import FailureClass


def test_loopback_is_refused_unless_configured(ground: Ground) -> None:
    ground.options = replace(LOOPBACK, allowed_networks=[])
    failed = ground.failure(ground.have(ground.a), ground.local("target"))
    assert (failed.failure_class, failed.recoverable) == (FailureClass.BACKEND_REFUSED, False)
    assert "127.0.0.1" in failed.message
    assert failed.cure
    failed = ground.failure(ground.put(), ground.remote(ground.a, "target"))
    assert failed.failure_class is FailureClass.BACKEND_REFUSED
    failed = ground.failure(ground.have(ground.a), ground.remote(ground.b, "target"))
    assert failed.failure_class is FailureClass.BACKEND_REFUSED
    assert ground.a.heard == ground.b.heard == []


def test_a_redirect_to_a_forbidden_address_is_not_followed(ground: Ground) -> None:
    for host in ("169.254.169.254", "10.0.0.1", "[::ffff:169.254.169.254]"):
        at = f"http://{host}/latest/meta-data"
        ground.a.faults = [Fault("GET", "redirect", location=at)]
        failed = ground.failure(ground.have(ground.a), ground.local("target"))
        assert failed.failure_class is FailureClass.BACKEND_REFUSED, host
        assert "address" in failed.message


def test_redirects_are_followed_a_few_times(ground: Ground) -> None:
    source = ground.have(ground.a)
    ground.have(ground.b)
    ground.a.faults = [Fault("GET", "redirect", location=f"{ground.b.url}/source")]
    ground.copy(source, ground.local("target"))
    assert (ground.folder / "target").read_bytes() == CONTENT
    assert ground.b.count("GET") == 1
    ground.a.faults = [Fault("GET", "redirect", location=f"{ground.a.url}/source", times=99)]
    failed = ground.failure(source, ground.local("other"))
    assert "too many redirects" in failed.message
    assert ground.a.count("GET") < 10


@pytest.mark.parametrize("location", ["file:///etc/passwd", "gopher://x/", "http://u:p@127.0.0.1/"])
def test_a_redirect_leads_to_storages_alone(ground: Ground, location: str) -> None:
    ground.a.faults = [Fault("GET", "redirect", location=location)]
    failed = ground.failure(ground.have(ground.a), ground.local("target"))
    assert failed.failure_class is FailureClass.BACKEND_REFUSED
    assert not failed.recoverable


def test_the_address_is_judged_again_when_it_is_connected(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that answers first this and then that does not lead the connection elsewhere."""
    port = int(ground.a.url.rpartition(":")[2])
    policy = replace(LOOPBACK, allowed_networks=["127.0.0.2/32"])

    class Lying(Resolved):
        @property
        def address(self) -> object:  # type: ignore[override]
            raise AssertionError("judged by the socket's own address")

    monkeypatch.setattr(
        connections,
        "allowed_addresses",
        lambda origin, policy: [Lying(socket.AF_INET, ("127.0.0.1", port))],
    )
    ground.options = policy
    failed = ground.failure(ground.have(ground.a), ground.local("target"))
    assert failed.failure_class is FailureClass.BACKEND_REFUSED
    assert ground.a.heard == []


def test_a_name_is_resolved_once_and_what_was_judged_is_spoken_to(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name that means another address from one moment to the next (DNS rebinding)."""
    port = int(ground.a.url.rpartition(":")[2])
    asked: list[str] = []

    def changing(host: str, port: int) -> list[Resolved]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) % 2 else "169.254.169.254"
        return [Resolved(socket.AF_INET, (address, port))]

    monkeypatch.setattr(connections, "resolve", changing)
    place = ground.have(ground.a)
    place = place._replace(url=f"http://changing.example.org:{port}/source")
    ground.copy(place, ground.local("target"))
    assert (ground.folder / "target").read_bytes() == CONTENT
    assert asked == ["changing.example.org"]
    failed = ground.failure(place, ground.local("other"))
    assert failed.failure_class is FailureClass.BACKEND_REFUSED
    assert "169.254.169.254" in failed.message


def test_a_token_is_shown_to_its_origin_alone(ground: Ground, tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("a-secret\n")
    ground.options = replace(LOOPBACK, token_files={ground.a.url: str(token)})
    ground.a.token = "a-secret"
    source = ground.have(ground.a)
    ground.copy(source, ground.local("target"))
    ground.have(ground.b)
    ground.a.faults = [Fault("GET", "redirect", location=f"{ground.b.url}/source")]
    ground.copy(source, ground.local("other"))
    assert ground.b.count("GET") == 1
    assert all("Authorization" not in one.headers for one in ground.b.heard)
    # Between storages the other one's token goes where it is meant to go, and nowhere else.
    ground.copy(source, ground.remote(ground.b, "copied"))
    (copied,) = [one for one in ground.b.heard if one.method == "COPY"]
    assert copied.headers["TransferHeaderAuthorization"] == "Bearer a-secret"
    assert "Authorization" not in copied.headers


def test_without_a_token_the_cure_is_told(ground: Ground) -> None:
    ground.a.token = "a-secret"
    failed = ground.failure(ground.have(ground.a), ground.local("target"))
    assert (failed.failure_class, failed.recoverable) == (FailureClass.CREDENTIAL, False)
    assert "token" in failed.cure


def test_https_is_judged_by_the_configured_authority(ground: Ground, tmp_path: Path) -> None:
    authority = Authority()
    roots = authority.write_roots(tmp_path / "roots.pem")
    pair = authority.write_pair(tmp_path, "storage")
    with serving(tmp_path / "secure", pair) as secure:
        secure.peers_ca = str(roots)
        source = ground.have(secure)
        failed = ground.failure(source, ground.local("target"))
        assert (failed.failure_class, failed.recoverable) == (FailureClass.BACKEND_REFUSED, False)
        assert "certificate" in failed.message
        ground.options = replace(LOOPBACK, ca_file=str(roots))
        ground.copy(source, ground.local("target"))
        assert (ground.folder / "target").read_bytes() == CONTENT
        ground.copy(ground.local("target"), ground.remote(secure, "deep/back"))
        assert secure.path("deep/back").read_bytes() == CONTENT
        # From https nothing leads to http.
        ground.have(ground.a)
        secure.faults = [Fault("GET", "redirect", location=f"{ground.a.url}/source")]
        failed = ground.failure(source, ground.local("other"))
        assert "from https to http" in failed.message
        assert ground.a.heard == []


def test_a_host_nobody_knows(ground: Ground) -> None:
    place = ground.remote(ground.a, "source")
    place = place._replace(url="https://no-such-host.invalid/x")
    failed = ground.failure(place, ground.local("target"))
    assert (failed.failure_class, failed.recoverable) == (FailureClass.BACKEND_REFUSED, True)
    assert "not known" in failed.message


def test_a_port_where_nobody_listens(ground: Ground) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    place = ground.remote(ground.a, "x")._replace(url=f"http://127.0.0.1:{port}/x")
    failed = ground.failure(place, ground.local("target"))
    assert failed.recoverable
    assert isinstance(ground.local("x"), Place)
