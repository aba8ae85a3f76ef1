"""Ports: TLS where it is configured, and a port that cannot be had stops the start."""

import datetime
from pathlib import Path
from typing import Any

import grpc
import pytest
import raw_calls
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from integration.kit_server.served import FailureOf, Room, Serve

PATH = "/gridlane.transfer.sample.v1.SampleService/GetThing"


class Things:
    async def GetThing(self, request: Any, call: Any) -> Any:
        raise AssertionError("never called")


@pytest.fixture
def pair(tmp_path: Path) -> tuple[Path, Path]:
    """A certificate of its own for localhost, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    paths = (tmp_path / "server.crt", tmp_path / "server.key")
    paths[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


async def test_with_a_certificate_calls_are_served_over_tls_alone(
    serve: Serve, pair: tuple[Path, Path], failure: FailureOf
) -> None:
    served = await serve(Things(), host="localhost", tls_certificate=pair[0], tls_key=pair[1])
    credentials = grpc.ssl_channel_credentials(pair[0].read_bytes())
    async with grpc.aio.secure_channel(served.server.address, credentials) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await raw_calls.unary(channel, PATH)(b"", timeout=10)
        assert failure(caught.value).reason == "TOKEN_MISSING"
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await served.unary("GetThing", b"", timeout=3)
    assert caught.value.code() in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.DEADLINE_EXCEEDED,
    )


async def test_a_port_that_is_taken_stops_the_start_and_gives_the_rooms_back(
    serve: Serve, rooms: list[Room]
) -> None:
    served = await serve(Things())
    taken = int(served.server.address.rpartition(":")[2])
    with pytest.raises(RuntimeError, match=str(taken)):
        await serve(Things(), port=taken)
    assert rooms[1].steps == ["start", "drain", "stop"]
