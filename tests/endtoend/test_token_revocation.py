"""How soon a revoked token is refused in every service: five processes on PostgreSQL."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
import pytest
from split import SplitServer
from support import bearer
from workers import Told

from gridlane.authorization.v1 import token_service_pb2, token_service_pb2_grpc

ROUNDS: Final = 5
IN_FORCE_S: Final = 1.0
PATIENCE_S: Final = 20
METHODS: Final = {
    "authorization": "/gridlane.authorization.v1.AuthorizationService/GetAuthorizationStatus",
    "transfer": "/gridlane.transfer.v1.StorageService/GetTransferStatus",
    "workload": "/gridlane.workload.v1.JobService/GetWorkloadStatus",
    "reporting": "/gridlane.reporting.v1.AccountingService/GetReportingStatus",
    "gateway": "/gridlane.gateway.v1.TaskService/Ping",
}
"""Of each service one that everybody may call; an empty request will do."""


def caller(server: SplitServer, path: str, token: str) -> Callable[[], str]:
    method: Any = server.channel.unary_unary(path)

    def call() -> str:
        try:
            method(b"", metadata=bearer(token), timeout=PATIENCE_S)
        except grpc.RpcError as error:
            return str(error.code().name)
        return "OK"

    return call


def until_refused(call: Callable[[], str]) -> float:
    """Calls again and again; returns how long it was answered."""
    begun = time.monotonic()
    while call() != "UNAUTHENTICATED":
        assert time.monotonic() - begun < PATIENCE_S, "it is never refused"
        time.sleep(0.01)
    return time.monotonic() - begun


@pytest.mark.timeout(120)
def test_a_revoked_token_is_refused_in_five_processes_within_a_second(
    split_server: SplitServer, tell: Told
) -> None:
    tokens = token_service_pb2_grpc.TokenServiceStub(split_server.channel)
    create = token_service_pb2.CreateTokenRequest(subject="eve", vos=["local"], reason="measured")
    longest = dict.fromkeys(METHODS, 0.0)
    with ThreadPoolExecutor(len(METHODS)) as pool:
        for _ in range(ROUNDS):
            made = split_server.call(tokens.CreateToken, create)
            calls = [caller(split_server, path, made.token) for path in METHODS.values()]
            assert [call() for call in calls] == ["OK"] * len(calls)
            revoke = token_service_pb2.RevokeTokenRequest(name=made.resource.name)
            split_server.call(tokens.RevokeToken, revoke)
            for service, took_s in zip(METHODS, pool.map(until_refused, calls), strict=True):
                longest[service] = max(longest[service], took_s)
    tell(
        "token revoked, five processes on PostgreSQL, until it is refused",
        [f"{service}: at most {seconds * 1000:.0f} ms" for service, seconds in longest.items()],
    )
    assert max(longest.values()) < IN_FORCE_S
