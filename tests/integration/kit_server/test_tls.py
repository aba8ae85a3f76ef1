"""TLS at real servers: certificates that change while they serve, and mutual TLS for services."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import raw_calls
from certificates import Authority
from grpc import aio
from integration.kit_server.served import FailureOf, Serve, Served, WirePeersOf

from gridlane_kit import channels
from gridlane_kit.assertions import ServiceKeysError
from gridlane_kit.call import Caller
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.peers import reading
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tls import CertificateError, ClientTls, ServerTls

SAMPLE = "gridlane.transfer.sample.v1.SampleService"
ADA = Principal("https://issuer.test/", "ada", vos=frozenset({"local"}))

ServeApart = Callable[[], Awaitable[Served]]


class Things:
    def __init__(self, messages: Any) -> None:
        self.m = messages
        self.go_on = asyncio.Event()

    async def GetThing(self, request: Any, call: Any) -> Any:
        return self.m.Thing(name=call.principal.actor or "nobody")

    async def WatchThings(self, request: Any, call: Any) -> AsyncIterator[Any]:
        yield self.m.Thing(count=1)
        await self.go_on.wait()
        yield self.m.Thing(count=2)


@pytest.fixture(autouse=True)
async def _limit() -> AsyncIterator[None]:
    async with asyncio.timeout(60):
        yield


@pytest.fixture
def things(messages: SimpleNamespace) -> Things:
    return Things(messages)


@pytest.fixture
def authority() -> Authority:
    return Authority()


@pytest.fixture
def roots(authority: Authority, tmp_path: Path) -> Path:
    return authority.write_roots(tmp_path / "ca.pem")


@pytest.fixture
def serve_tls(
    serve: Serve, things: Things, authority: Authority, roots: Path, tmp_path: Path
) -> Serve:
    """Serves the sample with TLS."""

    async def serve_tls(**settings: Any) -> Served:
        certificate, key = authority.write_pair(tmp_path, "server")
        return await serve(things, tls_certificate=certificate, tls_key=key, **settings)

    return serve_tls


def caller(timeout_s: float = 15) -> Caller:
    deadline = asyncio.get_running_loop().time() + timeout_s
    return Caller(ADA, deadline, Telemetry("workload").root())


async def reason_of(awaitable: Any) -> str:
    with pytest.raises(GridlaneError) as caught:
        await awaitable
    return str(caught.value.reason)


async def shown(address: str, roots: Path) -> str:
    """The serial number of the certificate that a new connection is shown."""

    def connect() -> str:
        context = ssl.create_default_context(cafile=str(roots))
        context.set_alpn_protocols(["h2"])
        host, _, port = address.rpartition(":")
        with (
            socket.create_connection((host, int(port)), timeout=10) as plain,
            context.wrap_socket(plain, server_hostname="localhost") as wrapped,
        ):
            certificate = wrapped.getpeercert()
            assert certificate is not None
            return str(certificate["serialNumber"])

    return await asyncio.to_thread(connect)


async def test_a_server_shows_new_certificates_without_a_restart(
    serve_tls: Serve,
    things: Things,
    authority: Authority,
    roots: Path,
    tmp_path: Path,
    wire_peers: WirePeersOf,
    messages: SimpleNamespace,
) -> None:
    served = await serve_tls()
    first = await shown(served.server.address, roots)
    assert await shown(served.server.address, roots) == first
    stub = wire_peers(served.server.address, tls=ClientTls(roots)).stubs(SAMPLE)(caller())
    request = messages.GetThingRequest(name="things/a")
    async with reading(stub.WatchThings(request)) as pages:
        assert (await anext(pages)).count == 1
        authority.write_pair(tmp_path, "server")
        second = await shown(served.server.address, roots)
        assert second != first
        things.go_on.set()
        assert (await anext(pages)).count == 2, "what is connected stays so"
    assert (await stub.GetThing(request)).name == "workload"
    assert await shown(served.server.address, roots) == second


async def test_certificates_that_are_half_there_are_not_taken_up(
    serve_tls: Serve, authority: Authority, roots: Path, tmp_path: Path
) -> None:
    served = await serve_tls()
    first = await shown(served.server.address, roots)
    certificate, key = tmp_path / "server.pem", tmp_path / "server.key"
    aside = tmp_path / "next"
    aside.mkdir()
    authority.write_pair(aside, "server")
    (aside / "server.pem").replace(certificate)  # and its key is not there yet
    assert await shown(served.server.address, roots) == first
    key_before = key.read_bytes()
    key.write_text("no key at all")
    assert await shown(served.server.address, roots) == first
    key.unlink()
    assert await shown(served.server.address, roots) == first
    key.write_bytes(key_before)
    assert await shown(served.server.address, roots) == first
    (aside / "server.key").replace(key)
    assert await shown(served.server.address, roots) != first


async def test_a_client_takes_up_new_roots_without_a_restart(
    serve: Serve,
    things: Things,
    tmp_path: Path,
    wire_peers: WirePeersOf,
    messages: SimpleNamespace,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(channels, "RENEWAL_PERIOD_S", 0.1)
    monkeypatch.setattr(channels, "OLD_CHANNEL_S", 0.1)
    old, new = Authority("old"), Authority("new")
    roots = old.write_roots(tmp_path / "ca.pem")
    certificate, key = old.write_pair(tmp_path, "server")
    served = await serve(things, tls_certificate=certificate, tls_key=key)
    peers = wire_peers(served.server.address, tls=ClientTls(roots))
    request = messages.GetThingRequest(name="things/a")
    stub = peers.stubs(SAMPLE)
    assert (await stub(caller()).GetThing(request)).name == "workload"
    new.write_pair(tmp_path, "server")
    stranger = wire_peers(served.server.address, tls=ClientTls(roots)).stubs(SAMPLE)
    assert await reason_of(stranger(caller(0.5)).GetThing(request)) == "PEER_UNAVAILABLE"
    async with reading(stub(caller()).WatchThings(request)) as pages:
        assert (await anext(pages)).count == 1
        new.write_roots(roots)
        await asyncio.sleep(0.2)
        assert (await stub(caller()).GetThing(request)).name == "workload"
        assert (await stranger(caller()).GetThing(request)).name == "workload"
        # The old channel's calls get a while, then they end, and their readers resume.
        assert await reason_of(anext(pages)) == "PEER_UNAVAILABLE"


async def test_a_server_that_cannot_be_verified_is_not_called(
    serve_tls: Serve, tmp_path: Path, wire_peers: WirePeersOf, messages: SimpleNamespace
) -> None:
    served = await serve_tls()
    others = Authority("other").write_roots(tmp_path / "other.pem")
    stub = wire_peers(served.server.address, tls=ClientTls(others)).stubs(SAMPLE)(caller(0.5))
    request = messages.GetThingRequest(name="things/a")
    assert await reason_of(stub.GetThing(request)) == "PEER_UNAVAILABLE"


# --- a listener for services alone ----------------------------------------------------------------


@pytest.fixture
def serve_apart(serve_tls: Serve, roots: Path) -> ServeApart:
    """Serves the sample, with a listener for services."""
    return lambda: serve_tls(peer_listener=True, peer_port=0, peer_ca=roots)


@pytest.fixture
def own(authority: Authority, roots: Path, tmp_path: Path) -> ClientTls:
    """What a service shows and believes."""
    return ClientTls(roots, *authority.write_pair(tmp_path, "workload"))


async def test_services_are_believed_at_their_own_listener_and_nowhere_else(
    serve_apart: ServeApart, own: ClientTls, wire_peers: WirePeersOf, messages: SimpleNamespace
) -> None:
    served = await serve_apart()
    request = messages.GetThingRequest(name="things/a")
    theirs = wire_peers(served.server.peer_address, tls=own).stubs(SAMPLE)
    assert (await theirs(caller()).GetThing(request)).name == "workload"
    users = wire_peers(served.server.address, tls=own).stubs(SAMPLE)
    assert await reason_of(users(caller(2)).GetThing(request)) == "PEER_UNAVAILABLE"


async def test_users_are_let_in_at_the_users_listener_and_nowhere_else(
    serve_apart: ServeApart,
    own: ClientTls,
    roots: Path,
    messages: SimpleNamespace,
    failure: FailureOf,
) -> None:
    served = await serve_apart()
    raw = messages.GetThingRequest(name="things/a").SerializeToString()

    async def ask(address: str) -> bytes:
        async with aio.secure_channel(address, own.current()) as channel:
            method = raw_calls.unary(channel, f"/{SAMPLE}/GetThing")
            return await method(raw, metadata=served.headers(), timeout=10)

    assert messages.Thing.FromString(await ask(served.server.address)).name == "nobody"
    with pytest.raises(aio.AioRpcError) as caught:
        await ask(served.server.peer_address)
    assert failure(caught.value).reason == "TOKEN_INVALID"


async def test_who_shows_no_certificate_of_the_peers_authority_is_not_let_in(
    serve_apart: ServeApart,
    roots: Path,
    tmp_path: Path,
    wire_peers: WirePeersOf,
    messages: SimpleNamespace,
) -> None:
    served = await serve_apart()
    request = messages.GetThingRequest(name="things/a")
    stranger = ClientTls(roots, *Authority("other").write_pair(tmp_path, "stranger"))
    for tls in (ClientTls(roots), stranger):
        stub = wire_peers(served.server.peer_address, tls=tls).stubs(SAMPLE)(caller(1))
        assert await reason_of(stub.GetThing(request)) == "PEER_UNAVAILABLE"


async def test_a_listener_for_services_needs_their_keys(serve_tls: Serve, roots: Path) -> None:
    with pytest.raises(ServiceKeysError, match="needs their public keys"):
        await serve_tls(peer_listener=True, peer_port=0, peer_ca=roots, receiver=None)


async def test_streams_at_both_listeners_end_with_a_drain(
    serve_apart: ServeApart, own: ClientTls, wire_peers: WirePeersOf, messages: SimpleNamespace
) -> None:
    served = await serve_apart()
    stub = wire_peers(served.server.peer_address, tls=own).stubs(SAMPLE)(caller())
    async with reading(stub.WatchThings(messages.GetThingRequest(name="things/a"))) as pages:
        assert (await anext(pages)).count == 1
        served.pipeline.drain_streams()
        assert await reason_of(anext(pages)) == "DRAINING"


# --- files that are not what they should be -------------------------------------------------------


def test_what_is_no_certificate_is_refused_by_name(
    authority: Authority, roots: Path, tmp_path: Path
) -> None:
    certificate, key = authority.write_pair(tmp_path, "server")
    other_key = authority.write_pair(tmp_path, "other")[1]
    missing = tmp_path / "missing.pem"
    for pair, named in (
        ((missing, key), missing),
        ((certificate, missing), missing),
        ((key, key), key),
        ((certificate, certificate), certificate),
        ((certificate, other_key), certificate),
    ):
        with pytest.raises(CertificateError, match=named.name):
            ServerTls(*pair)
        with pytest.raises(CertificateError, match=named.name):
            ClientTls(roots, *pair)
    for wrong in (missing, key):
        with pytest.raises(CertificateError, match=wrong.name):
            ClientTls(wrong)
        with pytest.raises(CertificateError, match=wrong.name):
            ServerTls(certificate, key, wrong)
