"""What every service says to a token, and how soon it says something else."""

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import grpc
from support import Deployment, bearer

IN_FORCE_S: Final = 1.0
PATIENCE_S: Final = 20.0
METHODS: Final = {
    "authorization": "/gridlane.authorization.v1.AuthorizationService/GetAuthorizationStatus",
    "transfer": "/gridlane.transfer.v1.StorageService/GetTransferStatus",
    "workload": "/gridlane.workload.v1.JobService/GetWorkloadStatus",
    "reporting": "/gridlane.reporting.v1.AccountingService/GetReportingStatus",
    "gateway": "/gridlane.gateway.v1.TaskService/Ping",
}
"""Of each service one that everybody may call; an empty request will do."""
OK: Final = grpc.StatusCode.OK
REFUSED: Final = grpc.StatusCode.UNAUTHENTICATED


def code_of(server: Deployment, path: str, token: str) -> grpc.StatusCode:
    """What a method says to a token."""
    method: Any = server.channel.unary_unary(path)
    try:
        method(b"", metadata=bearer(token), timeout=PATIENCE_S)
    except grpc.RpcError as error:
        code: grpc.StatusCode = error.code()
        return code
    return OK


def codes_of(server: Deployment, token: str) -> list[grpc.StatusCode]:
    """What all services say to a token, in the order of `METHODS`."""
    return [code_of(server, path, token) for path in METHODS.values()]


def until(server: Deployment, path: str, token: str, code: grpc.StatusCode) -> float:
    """Calls again and again; returns how long it took until a method said so, seconds."""
    begun = time.monotonic()
    while code_of(server, path, token) is not code:
        assert time.monotonic() - begun < PATIENCE_S, f"{path} never says {code}"
        time.sleep(0.01)
    return time.monotonic() - begun


def until_all(
    pool: ThreadPoolExecutor, server: Deployment, token: str, code: grpc.StatusCode
) -> Iterator[float]:
    """Begins to call all services at once; gives how long each took, in the order of `METHODS`."""
    return pool.map(lambda path: until(server, path, token, code), METHODS.values())


class Longest:
    """The longest time that each service took, of several rounds."""

    def __init__(self) -> None:
        self._seconds = dict.fromkeys(METHODS, 0.0)

    def add(self, took_s: Iterable[float]) -> None:
        """One round: a time for each service, in the order of `METHODS`."""
        for service, seconds in zip(METHODS, took_s, strict=True):
            self._seconds[service] = max(self._seconds[service], seconds)

    @property
    def lines(self) -> list[str]:
        """To be told."""
        return [f"{name}: at most {took * 1000:.0f} ms" for name, took in self._seconds.items()]

    @property
    def of_all_s(self) -> float:
        """That of the slowest service."""
        return max(self._seconds.values())
