"""How each room is made, the same in both shapes.

Responsible for what a room is given of its process and of its settings. What differs between the
shapes (where databases lie, who the peers are, where payloads find the services) is passed in by
`assembly` (all rooms in one process) and `split` (one).

Each room's package is imported when the room is made: a process pays for those that it has.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gridlane_kit.peers import Peers
from gridlane_kit.tokens import TokenSigner
from gridlane_server.configuration import Configuration
from gridlane_server.process import Process
from gridlane_transfer.settings import TransferSettings

if TYPE_CHECKING:
    from gridlane_authorization.key_files import KeyFiles
    from gridlane_authorization.room import AuthorizationRoom
    from gridlane_gateway.room import GatewayRoom
    from gridlane_reporting.room import ReportingRoom
    from gridlane_transfer.room import TransferRoom
    from gridlane_workload.room import WorkloadRoom


@dataclass(frozen=True)
class Rooms:
    """Makes the rooms of one process.

    Parameters:
        configuration: what is in force.
        process: what the rooms share.
        peers: the peers of a service ("workload").
        database_url: where the database of a service lies. On SQLite it is the process's alone;
            on PostgreSQL other processes may run the same service.
        migrate: whether an older schema is brought up to date at start, or refused.
    """

    configuration: Configuration
    process: Process
    peers: Callable[[str], Peers]
    database_url: Callable[[str], str]
    migrate: bool

    def authorization(
        self, signer: TokenSigner, keys: "KeyFiles", token_file: Path | None
    ) -> "AuthorizationRoom":
        """Authorization, which fills the process's policy.

        Parameters:
            signer: signs the users' tokens.
            keys: the files of its key.
            token_file: where the first user finds a token; None: there is no such user.
        """
        from gridlane_authorization.room import AuthorizationRoom

        return AuthorizationRoom(
            self.configuration.authorization,
            database_url=self.database_url("authorization"),
            signer=signer,
            keys=keys,
            policy=self.process.policy,
            token_file=token_file,
            metrics=self.process.metrics,
            migrate=self.migrate,
            stale_after_s=self.process.settings.policy_stale_after_s,
            issuers=self.process.issuers,
        )

    def transfer(self, settings: TransferSettings) -> "TransferRoom":
        """Transfer, with the storage elements of these settings."""
        from gridlane_transfer.room import TransferRoom

        url = self.database_url("transfer")
        return TransferRoom(
            settings,
            database_url=url,
            telemetry=self.process.telemetry_of("transfer"),
            policy=self.process.policy,
            metrics=self.process.metrics,
            exclusive=_is_exclusive(url),
            migrate=self.migrate,
        )

    def workload(
        self, jobs_directory: Path, address: Callable[[], str], ca: Path | None = None
    ) -> "WorkloadRoom":
        """Workload, with its embedded runner.

        Parameters:
            jobs_directory: where payloads work.
            address: where payloads find the services; asked when one is started.
            ca: the roots (PEM) that they verify the services with.
        """
        from gridlane_workload.room import WorkloadRoom

        url = self.database_url("workload")
        return WorkloadRoom(
            self.configuration.workload,
            database_url=url,
            jobs_directory=jobs_directory,
            peers=self.peers("workload"),
            telemetry=self.process.telemetry_of("workload"),
            policy=self.process.policy,
            address=address,
            ca=ca,
            migrate=self.migrate,
            exclusive=_is_exclusive(url),
        )

    def reporting(self) -> "ReportingRoom":
        """Reporting, which keeps the spans that this process makes."""
        from gridlane_reporting.room import ReportingRoom

        url = self.database_url("reporting")
        room = ReportingRoom(
            self.configuration.reporting,
            database_url=url,
            peers=self.peers("reporting"),
            telemetry=self.process.telemetry_of("reporting"),
            metrics=self.process.metrics,
            migrate=self.migrate,
            exclusive=_is_exclusive(url),
        )
        self.process.telemetry.add_sink(room.accept_span)
        return room

    def gateway(self) -> "GatewayRoom":
        """The gateway."""
        from gridlane_gateway.room import GatewayRoom

        return GatewayRoom(self.configuration.gateway, peers=self.peers("gateway"))


def _is_exclusive(database_url: str) -> bool:
    from gridlane_kit.sqlite import sqlite_file

    return sqlite_file(database_url) is not None
