"""What is in force in a process: the settings of the server and of every service in it.

Responsible for reading them together and for showing them, secrets masked. Each service's settings
are its own.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gridlane_authorization.settings import AuthorizationSettings
from gridlane_gateway.settings import GatewaySettings
from gridlane_kit.settings import ServerSettings, describe
from gridlane_reporting.settings import ReportingSettings
from gridlane_transfer.settings import TransferSettings
from gridlane_workload.settings import WorkloadSettings

DATA_DIRECTORY_VARIABLE = "GRIDLANE_DATA_DIR"


@dataclass(frozen=True, slots=True)
class Configuration:
    """The settings of everything in one process."""

    server: ServerSettings
    authorization: AuthorizationSettings
    transfer: TransferSettings
    workload: WorkloadSettings
    reporting: ReportingSettings
    gateway: GatewaySettings

    @classmethod
    def load(cls, **server: Any) -> "Configuration":
        """Reads all settings.

        Parameters:
            server: settings of the server that the command line gives.

        Raises:
            pydantic.ValidationError: a value is not acceptable.
            OSError, ValueError: GRIDLANE_CONFIG names a file that cannot be read.
        """
        return cls(
            server=ServerSettings.load("server", **server),
            authorization=AuthorizationSettings.load("authorization"),
            transfer=TransferSettings.load("transfer"),
            workload=WorkloadSettings.load("workload"),
            reporting=ReportingSettings.load("reporting"),
            gateway=GatewaySettings.load("gateway"),
        )

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
