"""Which server a client talks to, how, and with which token.

Responsible for the order in which places are asked; each of them answers address, token, group and
CA independently:

1. what the program gave;
2. the environment: GRIDLANE_ADDRESS, GRIDLANE_CA, GRIDLANE_GROUP, and the WLCG token discovery
   (`tokens.py`);
3. `gridlane/config.toml` in XDG_CONFIG_HOME, else in ~/.config: `address`, `[addresses]`, `ca`,
   `token_file`, `group`;
4. the server on this machine: `server.json` and `token` in GRIDLANE_DATA_DIR, else in
   ~/.local/share/gridlane.

The token of step 4 is sent to a loopback address only. Connections are made in `connection.py`.
"""

from __future__ import annotations

import ipaddress
import json
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gridlane.tokens import FixedToken, TokenFile, TokenSource, wlcg_token

DEFAULT_ADDRESS = "127.0.0.1:50051"
SERVICES = ("authorization", "transfer", "workload", "reporting", "gateway")


class ConfigurationError(ValueError):
    """What says where to connect, or with which token, is not usable.

    The message names it and the cure.
    """


@dataclass(frozen=True)
class Addresses:
    """Where each service is reached.

    Attributes:
        default: the address of services not in `by_service`, "host:port".
        by_service: addresses of their own ("workload": "host:port").
    """

    default: str = DEFAULT_ADDRESS
    by_service: Mapping[str, str] = field(default_factory=dict)

    def of(self, service: str) -> str:
        """The address of a service: "authorization", "transfer", "workload", "reporting",
        "gateway".
        """
        return self.by_service.get(service, self.default)

    def all(self) -> list[str]:
        """Every address that some service has."""
        return sorted({self.of(service) for service in SERVICES})


@dataclass(frozen=True)
class Configuration:
    """All that a connection needs.

    Attributes:
        addresses: where the services are.
        token: where the token comes from.
        ca: a file of CA certificates (PEM) that servers are verified with; None for the system's.
        group: the one of the token's groups in which calls are made ("/cms/production"); empty for
            the token's own choice.
    """

    addresses: Addresses
    token: TokenSource
    ca: Path | None = None
    group: str = ""


def discover(
    address: str | None = None,
    *,
    addresses: Mapping[str, str] | None = None,
    token: str | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    group: str | None = None,
    environ: Mapping[str, str] | None = None,
) -> Configuration:
    """Find out where to connect, asking the places named above in their order.

    Parameters:
        address: "host:port", or "service=host:port" several times with commas between.
        addresses: addresses of single services, over those of `address`.
        token: the token itself.
        token_file: a file that the token lies in.
        ca: a file of CA certificates (PEM).
        group: the group in which calls are made.
        environ: the environment; None for the process's.

    Raises:
        ConfigurationError: something found is not usable.
        TokenError: BEARER_TOKEN_FILE or `token_file` names nothing readable (raised by the first
            call).
    """
    env = os.environ if environ is None else environ
    file = _config_file(env)
    data = _data_directory(env)
    found = _addresses(address, addresses, env, file, data)
    acting = group or env.get("GRIDLANE_GROUP", "").strip() or str(file.get("group", ""))
    if not acting.isascii() or not acting.isprintable():
        raise ConfigurationError(f"{acting!r} is no group: expected a path as /cms/production")
    ca_file = ca or env.get("GRIDLANE_CA") or file.get("ca")
    return Configuration(
        addresses=found,
        token=_token(token, token_file, env, file, data, found),
        ca=Path(ca_file).expanduser() if ca_file else None,
        group=acting,
    )


def parse_addresses(text: str) -> Addresses:
    """Read "host:port" or "workload=host:port,transfer=host:port"; both may be mixed.

    Raises:
        ConfigurationError: a part is neither, or names no service.
    """
    default = DEFAULT_ADDRESS
    by_service: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        service, equals, address = part.rpartition("=")
        if equals:
            by_service[_service(service.strip())] = _address(address.strip())
        else:
            default = _address(part)
    return Addresses(default, by_service)


def is_loopback(address: str) -> bool:
    """Whether an address ("127.0.0.1:50051", "[::1]:50051", "localhost:50051", "unix:…") stays on
    this machine.
    """
    if address.startswith("unix:"):
        return True
    host = _host(address)
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _host(address: str) -> str:
    bare = address.rpartition("/")[2]  # "dns:///host:port"
    host, _, port = bare.rpartition(":")
    return (host if host and port.isdigit() else bare).strip("[]")


def _service(name: str) -> str:
    if name not in SERVICES:
        raise ConfigurationError(f"{name!r} is not a service; there are {', '.join(SERVICES)}")
    return name


def _address(text: str) -> str:
    bare = text.removeprefix("dns:///")
    _, colon, port = bare.rpartition(":")
    if not text.startswith("unix:") and not (colon and port.isdigit() and int(port) < 65536):
        raise ConfigurationError(
            f"{text!r} is not an address: expected host:port, for example {DEFAULT_ADDRESS}"
        )
    return text


def _addresses(
    address: str | None,
    addresses: Mapping[str, str] | None,
    env: Mapping[str, str],
    file: Mapping[str, Any],
    data: Path,
) -> Addresses:
    text = address or env.get("GRIDLANE_ADDRESS", "").strip()
    if text:
        base = parse_addresses(text)
    elif "address" in file or "addresses" in file:
        base = parse_addresses(file.get("address") or DEFAULT_ADDRESS)
        base = _with(base, file.get("addresses", {}))
    else:
        base = Addresses(_local_address(data))
    return _with(base, addresses or {})


def _with(base: Addresses, more: Mapping[str, str]) -> Addresses:
    checked = {_service(service): _address(address) for service, address in more.items()}
    return Addresses(base.default, {**base.by_service, **checked})


def _token(
    token: str | None,
    token_file: str | os.PathLike[str] | None,
    env: Mapping[str, str],
    file: Mapping[str, Any],
    data: Path,
    addresses: Addresses,
) -> TokenSource:
    if token:
        return FixedToken(token)
    if token_file:
        return TokenFile(Path(token_file))
    discovered = wlcg_token(env)
    if discovered is not None:
        return discovered
    if "token_file" in file:
        return TokenFile(Path(file["token_file"]).expanduser())
    local = data / "token"
    if all(is_loopback(address) for address in addresses.all()) and local.is_file():
        return TokenFile(local)
    return FixedToken("")  # the server then says that a token is missing, and which one it wants


def _config_file(env: Mapping[str, str]) -> Mapping[str, Any]:
    home = env.get("XDG_CONFIG_HOME") or str(Path(env.get("HOME", "~")).expanduser() / ".config")
    path = Path(home) / "gridlane" / "config.toml"
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error}") from error
    try:
        import tomllib
    except ModuleNotFoundError:  # Python 3.10
        warnings.warn(f"{path} is passed over: reading it needs Python 3.11", stacklevel=4)
        return {}
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{path} is not TOML: {error}") from error


def _data_directory(env: Mapping[str, str]) -> Path:
    if env.get("GRIDLANE_DATA_DIR"):
        return Path(env["GRIDLANE_DATA_DIR"])
    return Path(env.get("HOME", "~")).expanduser() / ".local" / "share" / "gridlane"


def _local_address(data: Path) -> str:
    path = data / "server.json"
    try:
        return _address(str(json.loads(path.read_text(encoding="utf-8"))["address"]))
    except OSError:
        return DEFAULT_ADDRESS  # no server has run here, or it is not ours to read
    except (ValueError, KeyError, TypeError) as error:
        raise ConfigurationError(f"{path} does not say where the server is: {error}") from error
