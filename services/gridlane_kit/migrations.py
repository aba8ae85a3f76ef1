"""A service's schema: is it up to date, bring it up to date, write the next migration.

Responsible for running Alembic on one service's database, and for not importing it when there is
nothing to do: a start with an up-to-date schema reads one row. The migrations themselves are the
service's: `<package>/migrations/{env.py,script.py.mako,versions/vNNNN_slug.py}`, revisions numbered
from 0001 in one line. Its version table is `<service>_version`, the package's name without
`gridlane_`.

For developers: `python -m gridlane_kit.migrations gridlane_workload.store:METADATA "what changes"`
compares the metadata with the migrations so far and writes the next one; at the first call it makes
the folder.
"""

import importlib
import logging
import re
import shutil
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, MetaData, column, create_engine, func, inspect, select
from sqlalchemy import table as sql_table
from sqlalchemy.pool import NullPool

from gridlane_kit.database import DatabaseUnusableError, is_on

if TYPE_CHECKING:
    from alembic.config import Config

_TEMPLATES = Path(__file__).parent / "migration_templates"
# The advisory lock under which a schema is migrated: "gridlane" in ASCII.
_MIGRATING = 0x677269646C616E65
_log = logging.getLogger(__name__)
_FILE = re.compile(r"v(\d{4})_\w+\.py")


def version_table(migrations: Path) -> str:
    """The name of a service's version table.

    Parameters:
        migrations: the service's `migrations` folder.
    """
    return f"{migrations.parent.name.removeprefix('gridlane_')}_version"


def check_schema(conn: Connection, metadata: MetaData, migrations: Path, *, migrate: bool) -> None:
    """See that the schema is one this version can use: its own, or that of the next revision.

    A migration only adds what the version before it does not miss, and takes away what that no
    longer uses; so the schema may be migrated while the version before is still serving.

    Parameters:
        conn: a connection in no transaction.
        metadata: the service's tables.
        migrations: the service's `migrations` folder.
        migrate: bring an older schema up to date, in one transaction.

    Raises:
        DatabaseUnusableError: the schema is older and `migrate` is False, or its revision is
            unknown.
    """
    known = revisions(migrations)
    if not known:
        raise DatabaseUnusableError(f"{migrations} has no migrations")
    with conn.begin():
        present = _revision(conn, version_table(migrations))
        if _is_usable(conn, present, known):
            return
    if not migrate:
        raise DatabaseUnusableError(
            f"the schema of {_shown(conn)} has the revision {present or 'none'}, this version needs"
            f" {known[-1]}: run gridlane-server migrate"
        )
    with conn.begin():
        if conn.dialect.name == "postgresql":
            conn.execute(select(func.pg_advisory_xact_lock(_MIGRATING)))
            # Another process may have done it meanwhile.
            if _is_usable(conn, _revision(conn, version_table(migrations)), known):
                return
        migrate_to(conn, metadata, migrations, known[-1])


def migrate_to(conn: Connection, metadata: MetaData, migrations: Path, revision: str) -> None:
    """Bring a schema to a revision that is the same or newer.

    Parameters:
        conn: a connection in a transaction; parameters as `check_schema` otherwise.
    """
    from alembic import command

    command.upgrade(_config(conn, metadata, migrations), revision)


def revisions(migrations: Path) -> list[str]:
    """The revisions that this version knows, oldest first, by the names of their files."""
    matches = (_FILE.fullmatch(path.name) for path in (migrations / "versions").iterdir())
    return sorted(match[1] for match in matches if match)


def schema_differences(conn: Connection, metadata: MetaData, migrations: Path) -> list[str]:
    """What Alembic's autogenerate would change: empty when migrations and `metadata` agree.

    Parameters:
        conn: a connection in a transaction, to a database that is up to date.
    """
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    context = MigrationContext.configure(
        conn,
        opts={
            "version_table": version_table(migrations),
            "compare_type": True,
            "compare_server_default": True,
            "include_object": _belongs(conn.dialect.name),
        },
    )
    return [repr(difference) for difference in compare_metadata(context, metadata)]


def run_environment() -> None:
    """The whole of a service's `env.py`: run the migrations asked for on the connection given."""
    from alembic import context

    attributes = context.config.attributes
    context.configure(
        connection=attributes["connection"],
        target_metadata=attributes["metadata"],
        version_table=attributes["version_table"],
        # SQLite alters a table by copying it, and does it in the transaction around.
        render_as_batch=True,
        compare_type=True,
        compare_server_default=True,
        include_object=_belongs(attributes["connection"].dialect.name),
    )
    with context.begin_transaction():
        context.run_migrations()


def write_revision(metadata: MetaData, migrations: Path, message: str) -> Path:
    """Write the migration from what the migrations so far make to what `metadata` says.

    Parameters:
        migrations: the service's `migrations` folder; made when it is not there.
        message: what changes, a few words; also the file's name.

    Returns:
        The file, to be read and corrected by whoever asked for it. It is made on SQLite: what only
        another engine has (`database.only_on`) is added by hand.
    """
    from alembic import command

    versions = migrations / "versions"
    versions.mkdir(parents=True, exist_ok=True)
    for name in ("__init__.py", "env.py", "script.py.mako", "versions/__init__.py"):
        if not (migrations / name).exists():
            shutil.copyfile(_TEMPLATES / name, migrations / name)
    known = revisions(migrations)
    number = _following(known[-1]) if known else "0001"
    with tempfile.TemporaryDirectory() as scratch:
        engine = create_engine(f"sqlite:///{scratch}/scratch.sqlite", poolclass=NullPool)
        with engine.begin() as conn:
            config = _config(conn, metadata, migrations)
            if known:
                command.upgrade(config, "head")
            command.revision(config, message, autogenerate=True, rev_id=number)
    return next(versions.glob(f"v{number}_*.py"))


def _belongs(dialect: str) -> Callable[..., bool]:
    """Alembic's `include_object`: leaves out the tables of other engines."""

    def belongs(item: Any, _name: str, kind: str, *_: Any) -> bool:
        return kind != "table" or is_on(item, dialect)

    return belongs


def _following(revision: str) -> str:
    return f"{int(revision) + 1:04d}"


def _revision(conn: Connection, table: str) -> str | None:
    if not inspect(conn).has_table(table):
        return None
    revisions = sql_table(table, column("version_num"))
    revision: str | None = conn.execute(select(revisions.c.version_num)).scalar()
    return revision


def _is_usable(conn: Connection, present: str | None, known: list[str]) -> bool:
    """Whether this version can serve on the revision `present`; False when that is older.

    Raises:
        DatabaseUnusableError: the revision is unknown.
    """
    if present == known[-1]:
        return True
    if present is None or present in known:
        return False
    if present == _following(known[-1]):
        _log.warning(
            "the schema of %s has the revision %s, of the next version, which this one can use",
            _shown(conn),
            present,
        )
        return True
    raise DatabaseUnusableError(
        f"the schema of {_shown(conn)} has the revision {present}; this version knows {known[0]} to"
        f" {known[-1]}, and can use the next: it was written by a newer version, start that one"
    )


def _shown(conn: Connection) -> str:
    return conn.engine.url.render_as_string(hide_password=True)


def _config(conn: Connection, metadata: MetaData, migrations: Path) -> "Config":
    from alembic.config import Config

    config = Config(
        attributes={
            "connection": conn,
            "metadata": metadata,
            "version_table": version_table(migrations),
        }
    )
    config.set_main_option("script_location", str(migrations).replace("%", "%%"))
    config.set_main_option("file_template", "v%%(rev)s_%%(slug)s")
    config.set_main_option("path_separator", "os")
    return config


def _main(target: str, message: str) -> None:
    module_name, _, attribute = target.partition(":")
    package = importlib.import_module(module_name.partition(".")[0])
    metadata: MetaData = getattr(importlib.import_module(module_name), attribute)
    written = write_revision(metadata, Path(package.__path__[0]) / "migrations", message)
    sys.stdout.write(f"{written}: read it, then ruff format it\n")


if __name__ == "__main__":
    _main(*sys.argv[1:])
