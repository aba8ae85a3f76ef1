"""What is in force in a process: the settings of the server and of every service in it.

Responsible for reading them together and for showing them, secrets masked. Each service's settings
are its own.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import Field

from gridlane_authorization.settings import AuthorizationSettings
from gridlane_gateway.settings import GatewaySettings
from gridlane_kit.settings import ServerSettings, Settings, describe
from gridlane_reporting.settings import ReportingSettings
from gridlane_transfer.settings import TransferSettings
from gridlane_workload.settings import WorkloadSettings

DATA_DIRECTORY_VARIABLE = "GRIDLANE_DATA_DIR"
STORES = ("authorization", "transfer", "workload", "reporting")
"""The services that have a database."""


class PeerSettings(Settings):
    """One process a service: where the services are, and how they believe each other.

    Read from `GRIDLANE_PEERS__…` and the table `[peers]`.
    """

    separator = "__"

    authorization: str = Field(default="", description="where Authorization is: a gRPC target")
    transfer: str = Field(default="", description="where Transfer is")
    workload: str = Field(default="", description="where Workload is")
    reporting: str = Field(default="", description="where Reporting is")
    gateway: str = Field(default="", description="where the gateway is; told to payloads alone")
    ca: Path | None = Field(
        default=None,
        description="roots (PEM) that the services' certificates are verified with; unset: plain"
        " text, on loopback only",
    )
    service_keys: Path | None = Field(
        default=None, description="the public keys of all services (JWKS), by their names"
    )
    keys: Path | None = Field(
        default=None,
        description="the folder in which a process finds the private key of its service,"
        " `<service>.pem`",
    )
    policies: Path | None = Field(
        default=None,
        description="the folder in which a process keeps the policy for its next start; unset: it"
        " starts only with Authorization",
    )

    @property
    def addresses(self) -> Mapping[str, str]:
        """Where the services are that one knows of."""
        named = {name: str(getattr(self, name)) for name in (*STORES, "gateway")}
        return {name: address for name, address in named.items() if address}


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings of everything in one process."""

    server: ServerSettings
    peers: PeerSettings
    authorization: AuthorizationSettings
    transfer: TransferSettings
    workload: WorkloadSettings
    reporting: ReportingSettings
    gateway: GatewaySettings

    @classmethod
    def load(cls, service: str | None = None, /, **server: Any) -> "Configuration":
        """Reads all settings.

        Parameters:
            service: the one that the process runs ("workload"), None for all.
            server: settings of the server that the command line gives.

        Raises:
            pydantic.ValidationError: a value is not acceptable.
            OSError, ValueError: GRIDLANE_CONFIG names a file that cannot be read.
        """
        return cls(
            server=ServerSettings.load_for(service, **server),
            peers=PeerSettings.load("peers"),
            authorization=AuthorizationSettings.load("authorization"),
            transfer=TransferSettings.load("transfer"),
            workload=WorkloadSettings.load("workload"),
            reporting=ReportingSettings.load("reporting"),
            gateway=GatewaySettings.load("gateway"),
        )

    def database_url(self, service: str) -> str:
        """Returns where the database of a service ("workload") lies; empty when nothing says so."""
        url: str = getattr(self, service).database_url.get_secret_value()
        return url

    def described(self, data_directory: Path) -> Mapping[str, Any]:
        """Returns everything in force as plain values, by service, secrets masked."""
        return {
            "data_dir": str(data_directory),
            **{part.name: describe(getattr(self, part.name)) for part in fields(self)},
        }


def default_data_directory() -> Path:
    """Returns where an embedded server keeps its data unless it is told."""
    given = os.environ.get(DATA_DIRECTORY_VARIABLE)
    return Path(given) if given else Path.home() / ".local" / "share" / "gridlane"
