"""Settings of Transfer. Responsible for names, defaults and units; where values come from is the
kit's.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, field_validator

from gridlane_kit.settings import StoreSettings

INTERNAL_ELEMENT = "jobs"
"""Where the workload service's jobs work; only that service may name it."""


class StorageElementSettings(BaseModel):
    """A storage element that is configured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern="^[a-z][a-z0-9-]{0,62}$")
    base_url: str = Field(description="what physical names begin with: file:///absolute/directory")
    vo_paths: dict[str, str] = Field(
        default={}, description="VO → the first part of its logical file names, for example /local"
    )
    internal: bool = Field(default=False, description="only the workload service may name it")

    @field_validator("base_url")
    @classmethod
    def _is_served(cls, value: str) -> str:
        if not value.startswith("file:///") or value == "file:///":
            raise ValueError(f"{value!r}: only file:///absolute/directory can be served")
        return value.removesuffix("/")

    @field_validator("vo_paths")
    @classmethod
    def _are_plain(cls, value: dict[str, str]) -> dict[str, str]:
        for vo, path in value.items():
            if not path.startswith("/") or any(
                part in ("", ".", "..") for part in path[1:].split("/")
            ):
                raise ValueError(f"the path of the VO {vo}, {path!r}, is not like /{vo}")
        return value


class TransferSettings(StoreSettings):
    """Settings of the service."""

    storage_elements: list[StorageElementSettings] = Field(
        default=[],
        description="what is configured here; empty in the embedded server: its own data directory",
    )
    max_files: int = Field(
        default=4,
        ge=1,
        le=1000,
        description="files at once on the default channel, when it is made",
    )
    workers: int = Field(
        default=2, ge=1, le=64, description="worker processes of the embedded mover"
    )
    copies_per_worker: int = Field(default=2, ge=1, le=64, description="copies at once in each")
    stall_s: float = Field(
        default=300.0,
        ge=1,
        description="a copy that makes no progress for so long is given up and tried again",
    )
    retry_delay_s: float = Field(
        default=2.0, ge=0, description="before the first retry of a file; doubles with each"
    )
    retry_delay_max_s: float = Field(default=600.0, ge=0, description="the longest of these delays")
    poll_s: float = Field(
        default=5.0, gt=0, description="how often due files are looked for unasked"
    )
    lease_s: float = Field(
        default=60.0, ge=5, description="a running file's lease; renewed at a third of it"
    )
    job_retention_days: int = Field(default=180, ge=1, description="ended jobs are kept so long")
    event_retention_days: int = Field(
        default=90, ge=1, description="events are kept so long, and until every follower has them"
    )
    retention_every_s: float = Field(default=3600.0, gt=0, description="how often what is old goes")

    def with_storage_elements(self, elements: Sequence[StorageElementSettings]) -> Self:
        """The same settings with these storage elements."""
        return self.model_copy(update={"storage_elements": list(elements)})


def embedded_storage_elements(storage: Path, jobs: Path) -> list[StorageElementSettings]:
    """The storage elements of the embedded server.

    Parameters:
        storage: the directory of the storage element `local`, whose VO `local` has the path
            `/local`.
        jobs: where the workload service's jobs work.
    """
    return [
        StorageElementSettings(
            name="local", base_url=storage.as_uri(), vo_paths={"local": "/local"}
        ),
        StorageElementSettings(name=INTERNAL_ELEMENT, base_url=jobs.as_uri(), internal=True),
    ]
