"""Plaintext to this machine, TLS to every other; and a real handshake."""

import datetime
import ipaddress
from collections.abc import Iterator
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import gridlane
from gridlane import connection
from gridlane.configuration import Addresses, ConfigurationError
from gridlane.nouns import service

FAST = gridlane.RetryPolicy(max_attempts=1)


def opened(monkeypatch: pytest.MonkeyPatch, *addresses: str, ca: Path | None = None) -> list[str]:
    """How channels to these addresses would be made."""
    made: list[str] = []
    for kind in ("insecure_channel", "secure_channel"):
        monkeypatch.setattr(
            grpc, kind, lambda address, *_, kind=kind, **__: made.append(f"{kind} {address}")
        )
    services = dict(zip(("transfer", "workload"), addresses[1:], strict=False))
    connection.open_channels(Addresses(addresses[0], services), ca)
    return sorted(made)


def test_only_what_stays_on_this_machine_is_plaintext(monkeypatch: pytest.MonkeyPatch) -> None:
    made = opened(monkeypatch, "127.0.0.1:1", "gridlane.example.org:2", "127.0.0.2:3")
    assert made == [
        "insecure_channel 127.0.0.1:1",
        "insecure_channel 127.0.0.2:3",
        "secure_channel gridlane.example.org:2",
    ]


def test_naming_a_ca_asks_for_tls_on_loopback_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "ca.pem").write_text("any")
    assert opened(monkeypatch, "localhost:1", ca=tmp_path / "ca.pem") == [
        "secure_channel localhost:1"
    ]
    with pytest.raises(ConfigurationError, match=r"gone\.pem"):
        opened(monkeypatch, "localhost:1", ca=tmp_path / "gone.pem")


def test_services_at_one_address_share_a_channel() -> None:
    channels = connection.open_channels(Addresses("127.0.0.1:1"), None)
    assert len(channels) == 5
    assert len(set(channels.values())) == 1


def test_a_server_is_spoken_to_by_tls_with_its_ca(tls_server: tuple[str, Path]) -> None:
    address, ca = tls_server
    with gridlane.Client(address, token="t", ca=ca) as client:
        assert client.whoami().policy_revision == 7
    with (
        gridlane.Client(address, token="t", retry=FAST) as client,
        pytest.raises(gridlane.Unavailable),
    ):
        client.whoami(timeout=5)


def test_a_server_of_another_ca_is_not_believed(
    tls_server: tuple[str, Path], tmp_path: Path
) -> None:
    other, _, _ = certificate()
    (tmp_path / "other.pem").write_bytes(other)
    with (
        gridlane.Client(tls_server[0], token="t", ca=tmp_path / "other.pem", retry=FAST) as client,
        pytest.raises(gridlane.Unavailable),
    ):
        client.whoami(timeout=5)


@pytest.fixture
def tls_server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """A TLS server on loopback that answers WhoAmI, and the CA it is known by."""
    chain, key, _ = certificate()
    (tmp_path / "ca.pem").write_bytes(chain)
    server = grpc.server(futures.ThreadPoolExecutor(2), handlers=[WhoAmI()])
    credentials = grpc.ssl_server_credentials([(key, chain)])
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    yield f"127.0.0.1:{port}", tmp_path / "ca.pem"
    server.stop(None).wait()


class WhoAmI(grpc.GenericRpcHandler):
    def service(self, _: grpc.HandlerCallDetails) -> Any:
        method = service.WHO_AM_I
        return grpc.unary_unary_rpc_method_handler(
            lambda *_: method.response(policy_revision=7),
            request_deserializer=method.request.FromString,
            response_serializer=method.response.SerializeToString,
        )


def certificate() -> tuple[bytes, bytes, x509.Certificate]:
    """A self-signed certificate of 127.0.0.1, its key, and itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "gridlane test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return made.public_bytes(serialization.Encoding.PEM), private, made
