"""The transfer backends: told to everybody, and nothing to be written to the embedded one."""

from collections.abc import Callable
from typing import Any

import grpc
import pytest

from gridlane.transfer.v1 import (
    backend_admin_service_pb2,
    backend_admin_service_pb2_grpc,
    backend_pb2,
    backend_service_pb2,
    backend_service_pb2_grpc,
)
from gridlane.type.v1 import checksum_pb2

EMBEDDED = "transferBackends/embedded"
OTHER = "transferBackends/fts"
Get = backend_service_pb2.GetTransferBackendRequest
List = backend_service_pb2.ListTransferBackendsRequest
Drift = backend_admin_service_pb2.ListBackendDriftRequest
Push = backend_admin_service_pb2.PushBackendConfigurationRequest


@pytest.fixture
def call(house: Any) -> Callable[..., Any]:
    """Calls a method of either service as a user."""
    backends = backend_service_pb2_grpc.BackendServiceStub(house.channel)
    admin = backend_admin_service_pb2_grpc.BackendAdminServiceStub(house.channel)

    async def call(user: str, method: str, request: Any) -> Any:
        stub = backends if hasattr(backends, method) else admin
        metadata = house.client(user).metadata
        return await getattr(stub, method)(request, metadata=metadata, timeout=20)

    return call


def capability(name: str) -> int:
    return backend_pb2.TransferCapability.Value(f"TRANSFER_CAPABILITY_{name}")


async def test_everybody_may_see_what_the_backend_can_do(call: Any) -> None:
    backend = await call("bob", "GetTransferBackend", Get(name=EMBEDDED))
    assert (backend.name, backend.kind) == (EMBEDDED, backend_pb2.TRANSFER_BACKEND_KIND_EMBEDDED)
    assert (backend.reachable, backend.authenticated, backend.message) == (True, True, "")
    assert backend.version
    assert backend.HasField("latency")
    assert "file" in backend.source_schemes
    assert "file" in backend.target_schemes
    assert checksum_pb2.CHECKSUM_TYPE_ADLER32 in backend.checksum_types
    for name in ("ALTERNATIVE_SOURCES", "MULTIHOP", "METADATA", "ACTIVITIES", "ATTEMPT_TIMEOUT"):
        assert capability(name) in backend.capabilities, name
    for name in ("STAGING", "ARCHIVING", "SESSION_REUSE", "SOURCE_STATISTICS", "CREDENTIALS"):
        assert capability(name) not in backend.capabilities, name
    listed = await call("bob", "ListTransferBackends", List(page_size=1))
    assert [one.name for one in listed.transfer_backends] == [EMBEDDED]
    assert listed.next_page_token == ""


async def test_a_backend_whose_processes_are_gone_is_not_reachable(
    house: Any, call: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(house.room.mover, "_workers", [])
    backend = await call("bob", "GetTransferBackend", Get(name=EMBEDDED))
    assert not backend.reachable
    assert backend.message


async def test_the_embedded_backend_has_no_configuration_of_its_own(call: Any, words: Any) -> None:
    answer = await call("admin", "ListBackendDrift", Drift(parent=EMBEDDED))
    assert (list(answer.drifts), answer.next_page_token) == ([], "")
    for validate_only in (True, False):
        request = Push(name=EMBEDDED, validate_only=validate_only)
        with pytest.raises(grpc.RpcError) as raised:
            await call("admin", "PushBackendConfiguration", request)
        assert raised.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert words.reason(raised.value) == "PRECONDITION"


@pytest.mark.parametrize(
    ("user", "method", "request_", "reason"),
    [
        ("bob", "GetTransferBackend", Get(name=OTHER), "NOT_FOUND"),
        ("admin", "ListBackendDrift", Drift(parent=OTHER), "NOT_FOUND"),
        ("admin", "PushBackendConfiguration", Push(name=OTHER), "NOT_FOUND"),
        ("sue", "ListBackendDrift", Drift(parent=EMBEDDED), "PERMISSION_DENIED"),
        ("sue", "PushBackendConfiguration", Push(name=EMBEDDED), "PERMISSION_DENIED"),
        ("bob", "ListTransferBackends", List(page_token="bm90IG91cnM"), "TOKEN_NOT_OURS"),
        ("admin", "ListBackendDrift", Drift(parent=EMBEDDED, page_token="x"), "TOKEN_NOT_OURS"),
    ],
)
async def test_what_is_refused(
    call: Any, words: Any, user: str, method: str, request_: Any, reason: str
) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        await call(user, method, request_)
    assert words.reason(raised.value) == reason
