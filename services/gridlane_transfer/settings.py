"""Settings of Transfer. Responsible for names, defaults and units; where values come from is the
kit's.
"""

from collections.abc import Sequence
from ipaddress import ip_network
from pathlib import Path
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from gridlane_kit.settings import StoreSettings
from gridlane_transfer.storage.element_urls import FILE, not_plain, place_of

INTERNAL_ELEMENT = "jobs"
"""Where the workload service's jobs work; only that service may name it."""

READ_ONLY = ("read", "check", "third_party_read")
"""What an element that is read-only is used for."""

_OperationWord = Literal[
    "read", "write", "check", "remove", "third_party_read", "third_party_write"
]
_ChecksumWord = Literal["ADLER32", "CRC32C", "MD5", "SHA1", "SHA256"]


class StorageEndpointSettings(BaseModel):
    """One way to reach a storage element that is configured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(
        description="what physical names begin with: file:///absolute/directory or"
        " https://host[:port]/path, also davs and http"
    )
    operations: list[_OperationWord] = Field(
        default=[], description="what it is used for; empty: everything that its protocol can do"
    )

    @field_validator("base_url")
    @classmethod
    def _is_served(cls, value: str) -> str:
        return _served(value)


class StorageElementSettings(BaseModel):
    """A storage element that is configured."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern="^[a-z][a-z0-9-]{0,62}$")
    base_url: str = Field(
        default="",
        description="what physical names begin with, of the first endpoint:"
        " file:///absolute/directory or https://host[:port]/path",
    )
    endpoints: list[StorageEndpointSettings] = Field(
        default=[], max_length=31, description="further ways to reach it, in order of preference"
    )
    vo_paths: dict[str, str] = Field(
        default={}, description="VO → the first part of its logical file names, for example /local"
    )
    internal: bool = Field(default=False, description="only the workload service may name it")
    read_only: bool = Field(default=False, description="nothing is written or removed there")
    draining: bool = Field(
        default=False, description="it is being emptied: nothing new is accepted for it as a target"
    )
    site: str = Field(default="", max_length=255, description="the site it stands at")
    description: str = Field(default="", max_length=1024, description="what it is for, for people")
    failover_for: list[str] = Field(
        default=[], max_length=32, description="names of the storage elements it stands in for"
    )
    checksum_types: list[_ChecksumWord] = Field(
        default=[], description="the checksums it computes, preferred first; empty: not known"
    )
    max_active_in: int = Field(default=0, ge=0, description="files written to it at once; 0: any")
    max_active_out: int = Field(default=0, ge=0, description="files read from it at once; 0: any")
    max_bandwidth_in_bytes_per_second: int = Field(
        default=0, ge=0, description="bytes in a second that are written to it; 0: any"
    )
    max_bandwidth_out_bytes_per_second: int = Field(
        default=0, ge=0, description="bytes in a second that are read from it; 0: any"
    )

    @field_validator("base_url")
    @classmethod
    def _is_served(cls, value: str) -> str:
        return _served(value) if value else value

    @field_validator("vo_paths")
    @classmethod
    def _are_plain(cls, value: dict[str, str]) -> dict[str, str]:
        for vo, path in value.items():
            if not path.startswith("/") or not_plain(path[1:]):
                raise ValueError(f"the path of the VO {vo}, {path!r}, is not like /{vo}")
        return value

    @model_validator(mode="after")
    def _has_an_endpoint(self) -> Self:
        if not self.base_url and not self.endpoints:
            raise ValueError("give base_url, or at least one of endpoints")
        for endpoint in self.endpoints if self.read_only else ():
            if endpoint.operations and not set(endpoint.operations) & set(READ_ONLY):
                raise ValueError(f"read_only leaves nothing to do for {endpoint.base_url}")
        return self

    def all_endpoints(self) -> list[StorageEndpointSettings]:
        """Every endpoint, `base_url` the first."""
        first = [StorageEndpointSettings(base_url=self.base_url)] if self.base_url else []
        return [*first, *self.endpoints]


def _served(value: str) -> str:
    base = value.removesuffix("/")
    place = place_of(base)
    if place is None or (place.family == FILE and not place.path[1:]):
        raise ValueError(
            f"{value!r}: only file:///absolute/directory or https://host[:port]/path can be served"
        )
    if place.path and not_plain(place.path[1:]):
        raise ValueError(f"{value!r}: the path has an empty part, `.` or `..`")
    return base


class HttpSettings(BaseModel):
    """How storages that speak HTTP are reached."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    allowed_networks: list[str] = Field(
        default=[],
        description="networks (CIDR) that may be reached though they are not public, for example"
        " 10.1.0.0/16; loopback, link-local and private addresses are refused otherwise",
    )
    ca_file: str = Field(
        default="",
        description="PEM of the authorities that storages are judged by; empty: the system's",
    )
    token_files: dict[str, str] = Field(
        default={},
        description='files with a bearer token each, by the origin that is shown it: "https://host"'
        ' or "https://host:port"',
    )
    connect_s: float = Field(default=10.0, gt=0, description="a connection may take so long")
    idle_s: float = Field(default=60.0, gt=0, description="a connection may be silent for so long")
    max_redirects: int = Field(default=5, ge=0, le=20, description="redirects that are followed")
    third_party: bool = Field(
        default=True, description="whether two storages are asked to copy between them"
    )

    @field_validator("allowed_networks")
    @classmethod
    def _are_networks(cls, value: list[str]) -> list[str]:
        for network in value:
            ip_network(network)
        return value

    @field_validator("token_files")
    @classmethod
    def _are_of_origins(cls, value: dict[str, str]) -> dict[str, str]:
        for origin in value:
            if not origin.startswith("https://") or origin.count("/") != 2:
                raise ValueError(f"{origin!r} is not like https://host:port")
        return value


class TransferSettings(StoreSettings):
    """Settings of the service."""

    storage_elements: list[StorageElementSettings] = Field(
        default=[],
        description="what is configured here; empty in the embedded server: its own data directory",
    )
    storage_file_roots: list[str] = Field(
        default=[],
        description="directories below which administrators may create storage elements with file:"
        " endpoints; empty: nowhere",
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
    http: HttpSettings = Field(
        default=HttpSettings(),
        description="how storages that speak HTTP are reached: allowed_networks, ca_file,"
        " token_files, connect_s, idle_s, max_redirects, third_party",
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
    optimizer_every_s: float = Field(
        default=30.0,
        gt=0,
        description="how often the optimizer of a channel decides how many files move at once",
    )
    job_retention_days: int = Field(default=180, ge=1, description="ended jobs are kept so long")
    event_retention_days: int = Field(
        default=90, ge=1, description="events are kept so long, and until every follower has them"
    )
    audit_retention_days: int = Field(
        default=400, ge=1, description="what managers changed is kept so long"
    )
    retention_every_s: float = Field(default=3600.0, gt=0, description="how often what is old goes")

    @field_validator("storage_file_roots")
    @classmethod
    def _are_absolute(cls, value: list[str]) -> list[str]:
        for root in value:
            if not root.startswith("/") or (root != "/" and not_plain(root[1:])):
                raise ValueError(f"{root!r} is no absolute directory")
        return value

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
