"""One service in a process of its own, its peers in others.

Responsible for what such a process has beside its room: its key and what it believes others by, its
way to its peers, the policy that it follows, its spans' way to Reporting, and the lock on a
database that takes one process alone. How the room is made is told in `rooms`.
"""

import os
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from gridlane.configuration import is_loopback
from gridlane_kit.assertions import AssertionSigner, AssertionVerifier, ServiceKeysError
from gridlane_kit.channels import PeerChannel
from gridlane_kit.data_directory import take_lock
from gridlane_kit.issuer_keys import FileKeys
from gridlane_kit.peers import EDGES, SPAN_KEEPER
from gridlane_kit.policy_feed import PolicyFollower
from gridlane_kit.server import ReadyInfo, Server, ServiceRoom
from gridlane_kit.span_export import SpanExport
from gridlane_kit.tls import ClientTls
from gridlane_kit.tokens import TokenVerifier
from gridlane_kit.wire_peers import WirePeers
from gridlane_server.configuration import STORES, Configuration, PeerSettings
from gridlane_server.issuers import TokenKeys, outside_issuers
from gridlane_server.process import Process
from gridlane_server.rooms import Rooms

T = TypeVar("T")


class NotConfiguredError(ValueError):
    """A setting is missing that a process of one service needs; names it, and the cure."""

    def __init__(self, variable: str, what: str) -> None:
        super().__init__(
            f"{variable} is not set: {what} (`gridlane-server init DIR` writes a configuration"
            " that has everything)"
        )


def refusals(service: str) -> tuple[type[Exception], ...]:
    """What keeps a service from serving, beside what the kit refuses and what is not set."""
    if service == "authorization":
        from gridlane_authorization.key_files import SigningKeyError

        return (SigningKeyError,)
    if service == "workload":
        from gridlane_workload.backends.embedded.account import AccountError, UnsafeBindError

        return (AccountError, UnsafeBindError)
    return ()


@contextmanager
def sole_use(service: str, configuration: Configuration) -> Iterator[None]:
    """Keeps other processes away from a service's database, where it takes one process alone.

    That is so on SQLite; on PostgreSQL several processes share the work by leases.

    Raises:
        NotConfiguredError: it is not said where the database lies.
        LockedError: another process uses it.
        OSError: there can be no lock beside it.
    """
    lock = None
    if service in STORES:
        from gridlane_kit.sqlite import sqlite_file

        file = sqlite_file(_database_url(service, configuration))
        lock = None if file is None else take_lock(file.with_name(f"{file.name}.lock"))
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


def service_server(service: str, configuration: Configuration, *, migrate: bool) -> Server:
    """Assembles the server of one service; `start` brings it up.

    Parameters:
        service: "authorization", "transfer", "workload", "reporting" or "gateway".
        configuration: read for this service.
        migrate: whether an older schema is brought up to date, or refused.

    Raises:
        NotConfiguredError: a setting is missing.
        ServiceKeysError, SigningKeyError, CertificateError, IssuerError, OSError: a key or
            certificate is not usable.
        UnsafeBindError: payloads would run as the server's user while the port is open to others.
    """
    return _Split(service, configuration, migrate).server()


class _Split:
    """What one service's process is put together from."""

    def __init__(self, service: str, configuration: Configuration, migrate: bool) -> None:
        self._service = service
        self._configuration = configuration
        peers = configuration.peers
        keys = _required(peers.keys, "GRIDLANE_PEERS__KEYS", "the folder of the services' keys")
        service_keys = _required(
            peers.service_keys, "GRIDLANE_PEERS__SERVICE_KEYS", "the public keys of all services"
        )
        self._signer = AssertionSigner.from_file(service, keys / f"{service}.pem")
        listener = configuration.server
        # Its own certificate, for peers that ask for one.
        own = (listener.tls_certificate, listener.tls_key)
        self._tls = None if peers.ca is None else ClientTls(peers.ca, *own)
        _refuse_plain_text_to_others(configuration.peers)
        tokens = configuration.authorization
        own_keys = _own_keys(configuration)
        issuers = outside_issuers(tokens)
        self._token_keys = TokenKeys(issuers, own_keys.keep_fresh)
        self._process = Process(
            configuration.server,
            service,
            TokenVerifier({tokens.issuer: own_keys}, tokens.audience, issuers),
            issuers,
            AssertionVerifier.from_file(service, service_keys),
        )
        for peer in sorted(EDGES[service]):
            what = f"where {peer} is, which {service} calls: host:port"
            _required(peers.addresses.get(peer), f"GRIDLANE_PEERS__{peer.upper()}", what)
        self._peers = WirePeers(
            service,
            {name: peers.addresses[name] for name in EDGES[service]},
            self._signer,
            self._tls,
            self._process.telemetry,
            default_deadline_s=configuration.server.default_deadline_s,
        )
        self._make = Rooms(
            configuration,
            self._process,
            peers=lambda _service: self._peers,
            database_url=lambda name: _database_url(name, configuration),
            migrate=migrate,
        )

    def server(self) -> Server:
        """Makes the rooms, in the order of their start, and the server that runs them."""
        makers: Mapping[str, Callable[[], ServiceRoom]] = {
            "authorization": self._authorization,
            "transfer": lambda: self._make.transfer(self._configuration.transfer),
            "workload": self._workload,
            "reporting": self._make.reporting,
            "gateway": self._make.gateway,
        }
        rooms: list[ServiceRoom] = [
            self._token_keys,
            _Support("peers", stop=self._peers.close),
            *self._span_export(),
            *self._policy_feed(),
            makers[self._service](),
        ]
        ready = ReadyInfo(token_file=self._configuration.authorization.token_file)
        return Server(self._configuration.server, rooms, self._process.pipeline, ready)

    def _authorization(self) -> ServiceRoom:
        from gridlane_authorization.key_files import KeyFiles
        from gridlane_authorization.tokens import read_signer

        settings = self._configuration.authorization
        key = _required(
            settings.token_key, "GRIDLANE_AUTHORIZATION_TOKEN_KEY", "the key that signs tokens"
        )
        signer = read_signer(key, settings.issuer, settings.audience)
        files = KeyFiles(key, settings.jwks)
        return self._make.authorization(signer, files, settings.token_file)

    def _workload(self) -> ServiceRoom:
        from gridlane_workload.backends.embedded.account import check_bind

        settings, peers = self._configuration.workload, self._configuration.peers
        check_bind(self._configuration.server.host, settings)
        jobs = _required(
            settings.jobs_directory,
            "GRIDLANE_WORKLOAD_JOBS_DIRECTORY",
            "where payloads work, the directory of Transfer's storage element `jobs`",
        )
        peers_are = ",".join(f"{name}={at}" for name, at in peers.addresses.items())
        address = settings.payload_address or peers_are
        return self._make.workload(jobs.absolute(), lambda: address, peers.ca)

    def _policy_feed(self) -> Sequence[ServiceRoom]:
        if self._service == "authorization":
            return ()
        folder = self._configuration.peers.policies
        return (
            PolicyFollower(
                self._service,
                self._peers.authorization_policy,
                self._process.policy,
                telemetry=self._process.telemetry,
                metrics=self._process.metrics,
                file=None if folder is None else folder / f"{self._service}.policy",
                stale_after_s=self._process.settings.policy_stale_after_s,
            ),
        )

    def _span_export(self) -> Sequence[ServiceRoom]:
        address = self._configuration.peers.addresses.get(SPAN_KEEPER)
        if self._service == SPAN_KEEPER or address is None:
            return ()
        export = SpanExport(PeerChannel(address, self._tls), self._signer)
        self._process.telemetry.add_sink(export.accept)
        return (_Support("spans", start=export.start, stop=export.stop),)


def _database_url(service: str, configuration: Configuration) -> str:
    return _required(
        configuration.database_url(service),
        f"GRIDLANE_{service.upper()}_DATABASE_URL",
        "where the service's database lies, for example postgresql+asyncpg://user@host/database",
    )


def _own_keys(configuration: Configuration) -> FileKeys:
    """The public keys of Authorization, from a file that it keeps."""
    file = _required(
        configuration.authorization.jwks,
        "GRIDLANE_AUTHORIZATION_JWKS",
        "the public keys that tokens are verified with",
    )
    try:
        return FileKeys(file)
    except (OSError, ValueError) as error:
        raise ServiceKeysError(f"{file}: the keys of users' tokens are not usable") from error


def _refuse_plain_text_to_others(peers: PeerSettings) -> None:
    """Assertions travel in plain text on this machine alone."""
    far = [at for at in peers.addresses.values() if not is_loopback(at)]
    if far and peers.ca is None:
        raise NotConfiguredError(
            "GRIDLANE_PEERS__CA", f"roots for the certificate of {far[0]}, which is not loopback"
        )


def _required(value: T | None, variable: str, what: str) -> T:
    if not value:
        raise NotConfiguredError(variable, what)
    return value


class _Support:
    """What begins before a process's service and ends after it, and serves nothing itself."""

    def __init__(
        self,
        name: str,
        *,
        start: Callable[[], Awaitable[None]] | None = None,
        stop: Callable[[], Awaitable[None]],
    ) -> None:
        self.name = name
        self._start = start
        self._stop = stop

    async def start(self) -> None:
        if self._start is not None:
            await self._start()

    def handlers(self) -> Sequence[tuple[str, object]]:
        return ()

    async def drain(self) -> None:
        """Nothing to drain: the service before it still uses it."""

    async def stop(self) -> None:
        await self._stop()
