"""The transfer backends: what each can do, how it is, and what its own configuration says.

Responsible for the answers of BackendService and BackendAdminService. There is one backend, the
embedded mover, which has no configuration of its own: what Gridlane is set to is what it does.
"""

import time

from google.protobuf.duration_pb2 import Duration

from gridlane.transfer.v1 import (
    backend_admin_service_pb2,
    backend_pb2,
    backend_service_pb2,
)
from gridlane.type.v1 import checksum_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.pages import page_request
from gridlane_transfer import capabilities
from gridlane_transfer.backends.base import BACKENDS, TransferBackend
from gridlane_transfer.store import storage


class TransferBackends:
    """The calls."""

    def __init__(self, backend: TransferBackend) -> None:
        self._backend = backend

    def get(self, name: str) -> backend_pb2.TransferBackend:
        """A backend as it is now.

        Raises:
            GridlaneError: NOT_FOUND.
        """
        self._require(name)
        return self._message()

    def page(
        self, request: backend_service_pb2.ListTransferBackendsRequest, call: Call
    ) -> list[backend_pb2.TransferBackend]:
        """A page of backends by name; there is never a further one.

        Raises:
            GridlaneError: TOKEN_NOT_OURS.
        """
        page = page_request(
            storage.BY_NAME,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListTransferBackends", call.principal.owner),
        )
        return [self._message()] if page.after is None else []

    def drifts(
        self, request: backend_admin_service_pb2.ListBackendDriftRequest, call: Call
    ) -> backend_admin_service_pb2.ListBackendDriftResponse:
        """Where a backend's configuration differs: nowhere, for one that has none.

        Raises:
            GridlaneError: NOT_FOUND, TOKEN_NOT_OURS.
        """
        self._require(request.parent)
        page_request(
            storage.BY_NAME,
            page_size=request.page_size,
            page_token=request.page_token,
            binding=("ListBackendDrift", request.parent, call.principal.owner),
        )
        return backend_admin_service_pb2.ListBackendDriftResponse()

    def push(self, name: str) -> backend_admin_service_pb2.PushBackendConfigurationResponse:
        """Write a backend's configuration, which no backend has.

        Raises:
            GridlaneError: NOT_FOUND; PRECONDITION.
        """
        self._require(name)
        raise errors.precondition(
            name,
            f"{name} has no configuration of its own: change channels, storage elements and shares"
            " here, and it does what they say",
        )

    def _require(self, name: str) -> None:
        if name != BACKENDS + self._backend.name:
            raise errors.not_found(name)

    def _message(self) -> backend_pb2.TransferBackend:
        backend = self._backend
        begun = time.monotonic()
        report = backend.report()
        latency = Duration()
        latency.FromMicroseconds(round((time.monotonic() - begun) * 1_000_000))
        return backend_pb2.TransferBackend(
            name=BACKENDS + backend.name,
            kind=backend_pb2.TRANSFER_BACKEND_KIND_EMBEDDED,
            source_schemes=sorted(backend.protocols),
            target_schemes=sorted(backend.protocols),
            capabilities=sorted(
                backend_pb2.TransferCapability.Value(f"TRANSFER_CAPABILITY_{name}")
                for name in backend.capabilities | capabilities.OF_EVERY_BACKEND
            ),
            checksum_types=sorted(
                checksum_pb2.ChecksumType.Value(f"CHECKSUM_TYPE_{name}")
                for name in backend.checksums
            ),
            reachable=report.reachable,
            authenticated=True,
            version=report.version,
            latency=latency,
            message=report.message,
        )
