"""What moves the files, and how it is set up: `client.backends`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from gridlane.calls import Timeout
from gridlane.errors import GridlaneError, error_from_status
from gridlane.modes import Mode, stream, verb
from gridlane.names import collection_name
from gridlane.nouns.noun import ClientNoun
from gridlane.transfer.v1 import backend_admin_service_pb2 as admin
from gridlane.transfer.v1 import backend_service_pb2 as rpc
from gridlane.transfer.v1.backend_drift_pb2 import BackendDrift
from gridlane.transfer.v1.backend_pb2 import TransferBackend
from gridlane.transport import Method

_SERVICE = "gridlane.transfer.v1.BackendService"
_ADMIN = "gridlane.transfer.v1.BackendAdminService"
GET = Method(_SERVICE, "GetTransferBackend", rpc.GetTransferBackendRequest, TransferBackend)
LIST = Method(
    _SERVICE,
    "ListTransferBackends",
    rpc.ListTransferBackendsRequest,
    rpc.ListTransferBackendsResponse,
)
LIST_DRIFT = Method(
    _ADMIN, "ListBackendDrift", admin.ListBackendDriftRequest, admin.ListBackendDriftResponse
)
PUSH = Method(
    _ADMIN,
    "PushBackendConfiguration",
    admin.PushBackendConfigurationRequest,
    admin.PushBackendConfigurationResponse,
)

#: Each difference with why it stays; None: it is gone.
PushResults = list[tuple[BackendDrift, GridlaneError | None]]


class Backends(ClientNoun[Mode]):
    """The transfer backends: what they can do, and where their own configuration differs."""

    @verb
    async def get(self, name: str, *, timeout: Timeout = None) -> TransferBackend:
        """One backend, asked now how it is.

        Parameters:
            name: "transferBackends/<name>" or the bare name, "embedded".
            timeout: see the package.

        Raises:
            NotFound: there is none of that name.
        """
        request = rpc.GetTransferBackendRequest(name=_name(name))
        return await self._calls.unary(GET, request, timeout)

    @stream
    def list(
        self, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[TransferBackend]:
        """The backends by name, each asked now how it is.

        Parameters:
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = rpc.ListTransferBackendsRequest()
        return self._listed(LIST, request, lambda page: page.transfer_backends, limit, timeout)

    @stream
    def drift(
        self, name: str, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[BackendDrift]:
        """Where a backend's own configuration differs from Gridlane's, by resource; for
        administrators.

        Parameters:
            name: as for `get`.
            limit: at most this many; None for all.
            timeout: for each page of 1000.

        Raises:
            NotFound: there is none of that name.
            Unavailable: it does not answer.
        """
        request = admin.ListBackendDriftRequest(parent=_name(name))
        return self._listed(LIST_DRIFT, request, lambda page: page.drifts, limit, timeout)

    @verb
    async def push(
        self,
        name: str,
        *,
        resources: Iterable[str] = (),
        reason: str = "",
        validate_only: bool = False,
        timeout: Timeout = None,
    ) -> PushResults:
        """Write Gridlane's configuration to a backend; for administrators.

        Parameters:
            name: as for `get`.
            resources: those whose configuration is written, as their drift names them, at most
                1000; none: all.
            reason: why; kept in the audit.
            validate_only: say what would be written, write nothing.
            timeout: see the package.

        Returns:
            Each difference with the error that refused it (returned, not raised), or None.

        Raises:
            NotFound: there is none of that name.
            FailedPrecondition: it has no configuration of its own.
            Unavailable: it does not answer.
        """
        request = admin.PushBackendConfigurationRequest(
            name=_name(name),
            resources=resources,
            reason=reason,
            validate_only=validate_only,
        )
        answer = await self._calls.unary(PUSH, request, timeout)
        return [
            (one.drift, error_from_status(one.status) if one.status.code else None)
            for one in answer.results
        ]


def _name(text: str) -> str:
    return collection_name(text, "transferBackends")
