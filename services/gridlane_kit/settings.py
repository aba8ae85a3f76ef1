"""Settings: where they come from, and how they are shown.

Responsible for the sources, strongest first: what the program passes, the environment
(`GRIDLANE_<SERVICE>_<SETTING>`, `__` nests), the table `[<service>]` of the one TOML file that
`GRIDLANE_CONFIG` names, the defaults. And for the settings of a server itself. Each service's own
settings are a subclass in its own `settings.py`.
"""

import os
import tomllib
from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
)

from gridlane.configuration import SERVICES

CONFIG_VARIABLE = "GRIDLANE_CONFIG"
"""Names the one TOML file of a deployment."""

PEER_PORT_OFFSET = 100
"""The listener for services is so far from the port for everybody."""

MASK = "********"


class Settings(BaseSettings):
    """Base of every settings class; make one with `load`."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )
    separator: ClassVar[str] = "_"
    """What stands in a variable's name between the table's and the setting's."""

    @classmethod
    def load(cls, service: str, **given: Any) -> Self:
        """Reads the settings of a service.

        Parameters:
            service: "workload" reads `GRIDLANE_WORKLOAD_…` and the table `[workload]`.
            given: what the command line says; overrides every other source.

        Raises:
            pydantic.ValidationError: a value is not acceptable; names the setting.
            OSError, tomllib.TOMLDecodeError: GRIDLANE_CONFIG names a file that cannot be read.
        """
        return cls._of(_toml_table(service), f"GRIDLANE_{service.upper()}{cls.separator}", given)

    @classmethod
    def _of(cls, table: Mapping[str, Any], prefix: str, given: Mapping[str, Any]) -> Self:
        """Puts the sources together: a table, the environment under a prefix, what is given."""
        environment = EnvSettingsSource(cls, env_prefix=prefix)()
        return cls(**_merged(_merged(table, environment), given))

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leaves only what `load` passes: the prefix depends on the service."""
        return (init_settings,)


class StoreSettings(Settings):
    """Settings of a service that has a database."""

    database_url: SecretStr = Field(
        default=SecretStr(""),
        description="one process a service: `postgresql+asyncpg://user@host/database`, or"
        " `sqlite:////absolute/path` for one process of it; the embedded server has its own",
    )


class LimitSettings(BaseModel):
    """Calls of each class that run at once (see `admission`)."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    unary: int = Field(default=2000, ge=1)
    batch: int = Field(default=64, ge=1)
    stream: int = Field(default=4000, ge=1)


class ServerSettings(Settings):
    """Settings of a server process."""

    host: str = Field(default="127.0.0.1", description="address to serve on; TLS unless loopback")
    port: int = Field(default=50051, ge=0, le=65535, description="0 takes any free one")
    health_host: str = Field(default="127.0.0.1", description="address of the health port")
    health_port: int = Field(default=50060, ge=0, le=65535, description="0 takes any free one")
    tls_certificate: Path | None = Field(default=None, description="PEM chain of the server")
    tls_key: Path | None = Field(default=None, description="PEM private key of the server")
    peer_listener: bool = Field(
        default=False,
        description="services call on a port of their own, with mutual TLS, and nowhere else",
    )
    peer_port: int | None = Field(
        default=None, ge=0, le=65535, description="unset: port + 100; 0 takes any free one"
    )
    peer_ca: Path | None = Field(
        default=None, description="PEM roots of the certificates that services show there"
    )
    ready_file: Path | None = Field(default=None, description="written when the server serves")
    endpoint_lag_s: float = Field(
        default=0.0, ge=0, description="serving goes on so long after health says NOT_SERVING"
    )
    grace_s: float = Field(default=10.0, ge=0, description="what calls in flight get at a stop")
    default_deadline_s: float = Field(
        default=30.0, gt=0, description="deadline of unary calls that bring none"
    )
    limits: LimitSettings = LimitSettings()
    policy_stale_after_s: float = Field(
        default=60.0,
        gt=0,
        description="a policy that was not confirmed for so long refuses everybody",
    )
    metrics_port: int | None = Field(
        default=None, ge=0, le=65535, description="Prometheus; unset = off, 0 = any free one"
    )
    metrics_host: str = "127.0.0.1"
    sampling_ratio: float = Field(default=1.0, ge=0, le=1, description="traces begun here")
    otlp_endpoint: str = Field(default="", description="host:port of an OTLP/gRPC collector")
    log_json: bool | None = Field(default=None, description="unset: unless on a terminal")
    log_level: str = Field(default="INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$")
    log_calls: bool = Field(default=False, description="a line for each call that went well")
    errors_page: str = Field(
        default="",
        pattern=r"^(https?://[!-~]{1,200})?$",
        description="URL where your users read docs/reference/errors.md: errors then point there",
    )

    @classmethod
    def load_for(cls, process: str | None, **given: Any) -> Self:
        """Reads the settings of one kind of server process.

        Parameters:
            process: "workload" reads the table `[server.workload]` over `[server]`; None, the
                process that has all services, reads `[server]` alone.
            given: what the command line says; overrides every other source.

        Raises: as `load`.
        """
        table = _toml_table("server")
        own = {name: table.pop(name) for name in SERVICES if name in table}
        if process is not None:
            table = _merged(table, own.get(process, {}))
        return cls._of(table, "GRIDLANE_SERVER_", given)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> Self:
        if (self.tls_certificate is None) != (self.tls_key is None):
            raise ValueError("tls_certificate and tls_key go together")
        if self.tls_certificate is None and not is_loopback(self.host):
            raise ValueError(
                f"{self.host} is not loopback: give tls_certificate and tls_key, or serve on"
                " 127.0.0.1"
            )
        if self.peer_listener and (self.tls_certificate is None or self.peer_ca is None):
            raise ValueError("peer_listener needs tls_certificate, tls_key and peer_ca")
        return self

    @property
    def peers_at(self) -> int:
        """The port of the listener for services."""
        if self.peer_port is not None:
            return self.peer_port
        return self.port + PEER_PORT_OFFSET if self.port else 0


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine alone."""
    if host == "localhost":
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def describe(settings: BaseModel) -> dict[str, Any]:
    """Returns what is in force as plain values, secrets masked."""
    return {name: _shown(getattr(settings, name)) for name in type(settings).model_fields}


def _shown(value: Any) -> Any:
    if isinstance(value, SecretStr):
        return MASK if value.get_secret_value() else ""
    if isinstance(value, BaseModel):
        return describe(value)
    if isinstance(value, Mapping):
        return {str(key): _shown(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_shown(item) for item in value]
    return value if isinstance(value, str | int | float | bool | None) else str(value)


def _toml_table(service: str) -> dict[str, Any]:
    path = os.environ.get(CONFIG_VARIABLE)
    if not path:
        return {}
    with Path(path).open("rb") as file:
        table = tomllib.load(file).get(service, {})
    if not isinstance(table, dict):
        raise ValueError(f"{path}: [{service}] is no table")
    return table


def _merged(weaker: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(weaker)
    for key, value in stronger.items():
        below = merged.get(key)
        merged[key] = (
            _merged(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
        )
    return merged
