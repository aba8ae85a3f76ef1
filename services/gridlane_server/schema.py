"""Bringing the databases of a data directory up to date without serving.

`gridlane-server all` does the same at its start; this is for those who want it done, and seen,
before.
"""

from pathlib import Path
from types import ModuleType

from sqlalchemy import MetaData

import gridlane_authorization
import gridlane_reporting
import gridlane_transfer
import gridlane_workload
from gridlane_authorization import store as authorization
from gridlane_kit.data_directory import DataDirectory
from gridlane_kit.database import Database
from gridlane_kit.sqlite import sqlite_url
from gridlane_reporting import store as reporting
from gridlane_transfer.store import tables as transfer
from gridlane_workload import store as workload

SCHEMAS: dict[str, tuple[MetaData, ModuleType]] = {
    "authorization": (authorization.METADATA, gridlane_authorization),
    "transfer": (transfer.METADATA, gridlane_transfer),
    "workload": (workload.METADATA, gridlane_workload),
    "reporting": (reporting.METADATA, gridlane_reporting),
}
"""The tables of each service that has a database, and the package that has its migrations."""


async def migrate(data: DataDirectory) -> list[Path]:
    """Brings every database up to date, making those that are missing.

    Returns:
        The database files.

    Raises:
        DatabaseUnusableError: a schema was written by a newer version.
    """
    files = []
    for service, (metadata, package) in SCHEMAS.items():
        migrations = Path(package.__path__[0]) / "migrations"
        file = data.database_file(service)
        db = await Database.open(
            sqlite_url(file), metadata=metadata, migrations=migrations, migrate=True
        )
        await db.close()
        files.append(file)
    return files
