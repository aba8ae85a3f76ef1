"""The embedded server: all services in one process, on one port, on one data directory.

Responsible for making the rooms and what they share, in the order in which they start. What a room
does is its own; how they are run is the kit's (`gridlane_kit.server`).
"""

from gridlane_authorization.room import AuthorizationRoom
from gridlane_authorization.tokens import open_signer, verifier_of
from gridlane_gateway.room import GatewayRoom
from gridlane_kit.admission import Admission, Limits
from gridlane_kit.data_directory import DataDirectory
from gridlane_kit.metrics import Metrics
from gridlane_kit.policy import Policy, PolicyHolder
from gridlane_kit.registration import Pipeline
from gridlane_kit.server import ReadyInfo, Server, ServiceRoom
from gridlane_kit.settings import ServerSettings
from gridlane_kit.sqlite import sqlite_url
from gridlane_kit.telemetry import Telemetry
from gridlane_kit.tokens import TokenSigner
from gridlane_reporting.room import ReportingRoom
from gridlane_server.configuration import Configuration
from gridlane_transfer.room import TransferRoom
from gridlane_transfer.settings import embedded_storage_elements
from gridlane_workload.backends.embedded.account import check_bind
from gridlane_workload.room import WorkloadRoom


def embedded_server(configuration: Configuration, data: DataDirectory) -> Server:
    """Assembles the embedded server; `start` brings it up.

    Parameters:
        data: the directory, held by this process.

    Raises:
        UnsafeBindError: payloads would run as the server's user while the port is open to others.
        SigningKeyError, OSError: the signing key cannot be used or made.
    """
    check_bind(configuration.server.host, configuration.workload)
    settings = configuration.authorization
    signer = open_signer(data.keys, settings.issuer, settings.audience)
    assembly = _Assembly(configuration, data, signer)
    return assembly.server()


class _Assembly:
    """What the rooms of one process share, and how each is made."""

    def __init__(
        self, configuration: Configuration, data: DataDirectory, signer: TokenSigner
    ) -> None:
        self._configuration = configuration
        self._data = data
        self._signer = signer
        self._server: Server | None = None
        self._policy = PolicyHolder(Policy(revision=0))
        self._metrics = Metrics()
        server = configuration.server
        self._telemetry = Telemetry(
            "gridlane", ratio=server.sampling_ratio, otlp_endpoint=server.otlp_endpoint
        )
        self._pipeline = Pipeline(
            verifier=verifier_of(signer),
            policy=self._policy,
            telemetry=self._telemetry,
            metrics=self._metrics,
            admission=_admission(server, self._metrics),
            default_deadline_s=server.default_deadline_s,
            log_calls=server.log_calls,
        )

    def server(self) -> Server:
        """Makes the rooms, in the order of their start, and the server that runs them."""
        reporting = self._reporting()
        self._telemetry.add_sink(reporting.accept_span)
        rooms: list[ServiceRoom] = [
            self._authorization(),
            self._transfer(),
            self._workload(),
            reporting,
            self._gateway(),
        ]
        ready = ReadyInfo(
            data_dir=self._data.root,
            token_file=self._data.token_file,
            server_file=self._data.server_file,
        )
        self._server = Server(self._configuration.server, rooms, self._pipeline, ready)
        return self._server

    def _authorization(self) -> AuthorizationRoom:
        return AuthorizationRoom(
            self._configuration.authorization,
            database_url=self._database_url("authorization"),
            signer=self._signer,
            policy=self._policy,
            token_file=self._data.token_file,
        )

    def _transfer(self) -> TransferRoom:
        settings = self._configuration.transfer
        if not settings.storage_elements:
            elements = embedded_storage_elements(self._data.storage, self._data.jobs)
            settings = settings.with_storage_elements(elements)
        return TransferRoom(
            settings,
            database_url=self._database_url("transfer"),
            telemetry=self._telemetry_of("transfer"),
            policy=self._policy,
            metrics=self._metrics,
            exclusive=True,
        )

    def _workload(self) -> WorkloadRoom:
        return WorkloadRoom(
            self._configuration.workload,
            database_url=self._database_url("workload"),
            jobs_directory=self._data.jobs,
            peers=self._pipeline.peers_for("workload"),
            telemetry=self._telemetry_of("workload"),
            policy=self._policy,
            address=self._address,
            migrate=True,
        )

    def _reporting(self) -> ReportingRoom:
        return ReportingRoom(
            self._configuration.reporting,
            database_url=self._database_url("reporting"),
            peers=self._pipeline.peers_for("reporting"),
            telemetry=self._telemetry_of("reporting"),
            metrics=self._metrics,
        )

    def _gateway(self) -> GatewayRoom:
        return GatewayRoom(self._configuration.gateway, peers=self._pipeline.peers_for("gateway"))

    def _address(self) -> str:
        """Returns where this process serves; payloads are told, once it does."""
        if self._server is None:
            raise RuntimeError("the server is not assembled yet")
        return self._server.address

    def _database_url(self, service: str) -> str:
        return sqlite_url(self._data.database_file(service))

    def _telemetry_of(self, service: str) -> Telemetry:
        """Returns what a room makes spans with: under its own name, kept where all spans are."""
        ratio = self._configuration.server.sampling_ratio
        return Telemetry(service, ratio=ratio, sinks=[self._telemetry.ended])


def _admission(settings: ServerSettings, metrics: Metrics) -> Admission:
    limits = settings.limits
    admission = Admission(Limits(unary=limits.unary, batch=limits.batch, stream=limits.stream))
    metrics.watch_admission(admission)
    return admission
