"""`gridlane-server init`: everything that one process a service needs, in one directory.

Responsible for making keys, certificates, the first token and the configuration that names them;
for file modes (what is secret is its owner's alone); and for never replacing what is there. The
configuration is meant to be read and changed by people.

    gridlane.toml              the configuration of all services (0600: it may hold a password)
    client.env                 what clients need, for a shell to read
    keys/<service>.pem         the key a service asserts itself with (0600)
    keys/tokens.pem            the key that Authorization signs users' tokens with (0600)
    service_keys.json          the public halves of the services' keys
    jwks.json                  the public half of the tokens' key
    tls/<service>.{crt,key}    a certificate of the test authority each, and its key (0600)
    ca.pem                     the test authority
    token                      the first admin's token (0600)
    policies/                  what each process last heard of the policy
    db/ storage/ jobs/         SQLite's files, the storage element `local`, payloads
"""

import errno
import json
import random
import shlex
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from string import Template
from typing import Final

from gridlane.configuration import SERVICES
from gridlane_authorization.room import LOCAL_VO, operating_system_user
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_kit.assertions import service_jwks
from gridlane_kit.data_directory import write_secret
from gridlane_kit.settings import is_loopback
from gridlane_kit.sqlite import sqlite_url
from gridlane_kit.tokens import TokenSigner, dump_key, new_key
from gridlane_server.certificates import TestAuthority
from gridlane_server.configuration import STORES

FIRST_PORT: Final = 50051
_HEALTH_OFFSET: Final = 10
"""A service's health port is its port and this."""
_PORTS: Final = ("gateway", "authorization", "transfer", "workload", "reporting")
"""The services in the order of their ports."""
_DAY_S: Final = 86_400
# The root and jobs/ let others pass, not look: payloads may run as another user below jobs/.
_FOLDERS: Final = {
    **dict.fromkeys(("keys", "tls", "policies", "db", "storage"), 0o700),
    "jobs": 0o711,
}
_ROOT_MODE: Final = 0o711
_SERVICE_PLACE: Final = "{service}"

_CONFIGURATION: Final = Template("""\
# Gridlane, one process a service: `gridlane-server SERVICE --config $file`.
# Every setting can be given in the environment too, which counts more: GRIDLANE_TRANSFER_WORKERS=4,
# GRIDLANE_SERVER_PORT=…, GRIDLANE_PEERS__TRANSFER=…. All of them: docs/reference/settings.md.

# --- every process ------------------------------------------------------------------------------

[server]
host = $host

# --- who is where, and how they believe each other ----------------------------------------------

[peers]
$peers
ca = $ca
service_keys = $service_keys
# Where a process finds the key of its own service; it needs no other.
keys = $keys
# What a process last heard of who may do what: with it, it starts while Authorization is away.
policies = $policies
$listeners
# --- the services -------------------------------------------------------------------------------

[authorization]
database_url = $authorization_url
issuer = $issuer
audience = $audience
# Whose users come with tokens of their own issuer: a table [[authorization.issuers]] for each, see
# docs/how-to/accept-tokens-of-an-issuer.md. `gridlane-server issuers` checks them.
# Every service verifies users' tokens with this; Authorization alone has the key.
jwks = $jwks
token_key = $token_key
# The first admin, whose token is kept good in this file.
local_user = $user
token_file = $token_file

[transfer]
database_url = $transfer_url

[[transfer.storage_elements]]
name = "local"
base_url = $storage
vo_paths = { $vo = "/$vo" }

# Where the embedded runner's payloads work: Transfer and Workload see the same directory.
[[transfer.storage_elements]]
name = "jobs"
base_url = $jobs_url
internal = true

[workload]
database_url = $workload_url
jobs_directory = $jobs
$run_as
[reporting]
database_url = $reporting_url

[gateway]
""")
_LISTENER: Final = Template("""
[server.$service]
port = $port
health_port = $health_port
tls_certificate = $certificate
tls_key = $key
""")
_RUN_AS: Final = """\
# Others reach this server: payloads must run as a user without rights, which takes root to start.
# run_as = "nobody"
"""


class AlreadyThereError(Exception):
    """The directory is not empty; its keys are never replaced."""

    def __init__(self, root: Path) -> None:
        super().__init__(
            f"{root} is not empty, and keys are never replaced: give a new directory, or remove"
            " this one first (with its keys every token ends that they signed)"
        )


@dataclass(frozen=True, slots=True)
class Initialised:
    """What was made, for the operator."""

    root: Path
    config: Path
    token_file: Path
    ca: Path
    addresses: Mapping[str, str]

    @property
    def environment(self) -> Mapping[str, str]:
        """What clients on this machine need."""
        return {
            "GRIDLANE_ADDRESS": ",".join(f"{name}={at}" for name, at in self.addresses.items()),
            "GRIDLANE_CA": str(self.ca),
            "BEARER_TOKEN_FILE": str(self.token_file),
        }


def initialise(root: Path, *, host: str, first_port: int, database_url: str) -> Initialised:
    """Fills a directory that is new or empty.

    Parameters:
        host: where the services listen and are reached: a name or an address.
        first_port: the gateway's; those of the others follow, and their health ports ten further
            on; 0 takes fifteen in a row that are free.
        database_url: the services' databases, `{service}` in the place of the name; empty: SQLite
            files in the directory.

    Raises:
        AlreadyThereError: the directory is not empty.
        OSError: it cannot be written.
        ValueError: `database_url` has no place for the name, or nobody can reach `host`.
    """
    if database_url and _SERVICE_PLACE not in database_url:
        raise ValueError(
            f"the template {database_url!r} has no {_SERVICE_PLACE}: each service has its own"
        )
    host = _reachable(host)
    root = root.absolute()
    root.mkdir(parents=True, exist_ok=True)
    if any(root.iterdir()):
        raise AlreadyThereError(root)
    root.chmod(_ROOT_MODE)
    first_port = first_port or _free_ports()
    for name, mode in _FOLDERS.items():
        (root / name).mkdir(mode=mode)
        (root / name).chmod(mode)
    made = Initialised(
        root=root,
        config=root / "gridlane.toml",
        token_file=root / "token",
        ca=root / "ca.pem",
        addresses={service: f"{host}:{first_port + n}" for n, service in enumerate(_PORTS)},
    )
    _write_service_keys(root)
    _write_token_key(made)
    _write_certificates(made, host)
    exports = (f"export {name}={shlex.quote(value)}\n" for name, value in made.environment.items())
    (root / "client.env").write_text("".join(exports))
    # The configuration last: a directory that has it is whole.
    write_secret(made.config, _configuration(made, host, first_port, database_url).encode())
    return made


def _write_service_keys(root: Path) -> None:
    keys = {service: new_key() for service in SERVICES}
    for service, key in keys.items():
        write_secret(root / "keys" / f"{service}.pem", dump_key(key))
    _write_json(root / "service_keys.json", service_jwks(keys))


def _write_token_key(made: Initialised) -> None:
    settings = AuthorizationSettings()
    key = new_key()
    signer = TokenSigner(key, settings.issuer, settings.audience)
    write_secret(made.root / "keys" / "tokens.pem", dump_key(key))
    _write_json(made.root / "jwks.json", signer.jwks())
    user = operating_system_user()
    lifetime_s = int(settings.token_lifetime_days * _DAY_S)
    token = signer.sign_user(user, display_name=user, vos=[LOCAL_VO], lifetime_s=lifetime_s)
    write_secret(made.token_file, token.encode())


def _write_certificates(made: Initialised, host: str) -> None:
    authority = TestAuthority()
    made.ca.write_bytes(authority.root)
    for service in SERVICES:
        certificate = authority.certify(service, (host, "localhost", "127.0.0.1", "::1"))
        (made.root / "tls" / f"{service}.crt").write_bytes(certificate.chain)
        write_secret(made.root / "tls" / f"{service}.key", certificate.key)


def _configuration(made: Initialised, host: str, first_port: int, database_url: str) -> str:
    root, settings = made.root, AuthorizationSettings()
    listeners = (
        _LISTENER.substitute(
            service=service,
            port=first_port + n,
            health_port=first_port + _HEALTH_OFFSET + n,
            certificate=_text(root / "tls" / f"{service}.crt"),
            key=_text(root / "tls" / f"{service}.key"),
        )
        for n, service in enumerate(_PORTS)
    )
    urls = {
        f"{service}_url": _text(
            database_url.replace(_SERVICE_PLACE, service)
            or sqlite_url(root / "db" / f"{service}.sqlite")
        )
        for service in STORES
    }
    return _CONFIGURATION.substitute(
        urls,
        file=made.config,
        host=_text(host),
        peers="\n".join(f"{name} = {_text(at)}" for name, at in made.addresses.items()),
        ca=_text(made.ca),
        service_keys=_text(root / "service_keys.json"),
        keys=_text(root / "keys"),
        policies=_text(root / "policies"),
        listeners="".join(listeners),
        issuer=_text(settings.issuer),
        audience=_text(settings.audience),
        jwks=_text(root / "jwks.json"),
        token_key=_text(root / "keys" / "tokens.pem"),
        user=_text(operating_system_user()),
        token_file=_text(made.token_file),
        vo=LOCAL_VO,
        storage=_text((root / "storage").as_uri()),
        jobs_url=_text((root / "jobs").as_uri()),
        jobs=_text(root / "jobs"),
        run_as="" if is_loopback(host) else _RUN_AS,
    )


def _reachable(host: str) -> str:
    """Returns a host as it stands before a port: IPv6 addresses in brackets.

    Raises:
        ValueError: it stands for every address of a machine, and so for none that others know.
    """
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return host  # a name
    if address.is_unspecified:
        raise ValueError(f"the host {host} cannot be reached: give a name or an address")
    return f"[{address}]" if address.version == 6 else str(address)


def _free_ports() -> int:
    """Returns the first of a row of ports of which none is in use, on this machine and now.

    Raises:
        OSError: none were found.
    """
    for _ in range(100):
        # Below the ports that systems give to outgoing connections by themselves.
        first = random.randrange(20_000, 32_000)  # noqa: S311 - no secret
        if all(_is_free(first + n) for n in range(_HEALTH_OFFSET + len(_PORTS))):
            return first
    raise OSError(errno.EADDRINUSE, "there are no fifteen free ports in a row: give --first-port")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _text(value: object) -> str:
    """Returns a TOML string; JSON's escapes are a part of TOML's."""
    return json.dumps(str(value), ensure_ascii=False)


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(content, indent=2) + "\n")
