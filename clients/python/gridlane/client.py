"""The client: `Client` for synchronous programs; `aio.py` has its twin for asyncio.

Responsible for putting configuration, connection and nouns together. The nouns have the verbs.

    with gridlane.Client() as client:
        task = client.tasks.submit(gridlane.new_job("python3 analyse.py", inputs={…}))
        task = client.tasks.wait(task.name)
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from types import TracebackType
from typing import TYPE_CHECKING

from gridlane.calls import DEFAULT_TIMEOUT_S, Calls, Timeout, in_seconds
from gridlane.configuration import SERVICES, Configuration, discover
from gridlane.modes import Mode, Noun, Sync, finish, verb
from gridlane.retry import RetryPolicy
from gridlane.tracing import traceparent_of
from gridlane.transport import BlockingTransport, Transport

if TYPE_CHECKING:
    import grpc

    from gridlane.authorization.v1.authorization_service_pb2 import WhoAmIResponse
    from gridlane.gateway.v1.task_service_pb2 import PingResponse
    from gridlane.nouns.accounting import Accounting
    from gridlane.nouns.activities import Activities
    from gridlane.nouns.audit import Audit
    from gridlane.nouns.authorization import Authorization
    from gridlane.nouns.backends import Backends
    from gridlane.nouns.channels import Channels
    from gridlane.nouns.groups import Groups
    from gridlane.nouns.issuers import Issuers
    from gridlane.nouns.jobs import Jobs
    from gridlane.nouns.keys import Keys
    from gridlane.nouns.replicas import Replicas
    from gridlane.nouns.roles import Roles
    from gridlane.nouns.spans import Spans
    from gridlane.nouns.storage import Storage
    from gridlane.nouns.storage_settings import StorageSettings
    from gridlane.nouns.tasks import Tasks
    from gridlane.nouns.tokens import Tokens
    from gridlane.nouns.transfers import Transfers
    from gridlane.nouns.vos import Vos


class BaseClient(Noun[Mode]):
    """What both clients have. The nouns are imported when they are first used."""

    def __init__(
        self,
        transport: Transport,
        configuration: Configuration,
        timeout: Timeout,
        retry: RetryPolicy | None,
        traceparent: str | None,
    ) -> None:
        self._blocking = transport.blocking
        #: Where the client connects to.
        self.configuration = configuration
        self._calls = Calls(
            transport=transport,
            token=configuration.token,
            timeout_s=in_seconds(timeout, DEFAULT_TIMEOUT_S),
            policy=retry or RetryPolicy(),
            traceparent=traceparent_of(traceparent),
            group=configuration.group,
        )

    @cached_property
    def tasks(self) -> Tasks[Mode]:
        """Jobs with all that belongs to them: submit, describe, watch, cancel, wait."""
        from gridlane.nouns.tasks import Tasks

        return Tasks(self._calls)

    @cached_property
    def jobs(self) -> Jobs[Mode]:
        """The workload service's jobs."""
        from gridlane.nouns.jobs import Jobs

        return Jobs(self._calls)

    @cached_property
    def transfers(self) -> Transfers[Mode]:
        """Transfer jobs and their files."""
        from gridlane.nouns.transfers import Transfers

        return Transfers(self._calls)

    @cached_property
    def replicas(self) -> Replicas[Mode]:
        """The catalogue of logical files and their copies."""
        from gridlane.nouns.replicas import Replicas

        return Replicas(self._calls)

    @cached_property
    def storage(self) -> Storage[Mode]:
        """Storage elements; files put, got and removed."""
        from gridlane.nouns.storage import Storage

        return Storage(self._calls)

    @cached_property
    def storage_settings(self) -> StorageSettings[Mode]:
        """Storage elements made, changed, removed and banned."""
        from gridlane.nouns.storage_settings import StorageSettings

        return StorageSettings(self._calls)

    @cached_property
    def channels(self) -> Channels[Mode]:
        """Transfer channels."""
        from gridlane.nouns.channels import Channels

        return Channels(self._calls)

    @cached_property
    def activities(self) -> Activities[Mode]:
        """The shares of activities within a virtual organisation."""
        from gridlane.nouns.activities import Activities

        return Activities(self._calls)

    @cached_property
    def backends(self) -> Backends[Mode]:
        """What moves the files."""
        from gridlane.nouns.backends import Backends

        return Backends(self._calls)

    @cached_property
    def accounting(self) -> Accounting[Mode]:
        """Accounting records."""
        from gridlane.nouns.accounting import Accounting

        return Accounting(self._calls)

    @cached_property
    def spans(self) -> Spans[Mode]:
        """Recent spans of jobs."""
        from gridlane.nouns.spans import Spans

        return Spans(self._calls)

    @cached_property
    def authorization(self) -> Authorization[Mode]:
        """Who the caller is, and who may do what."""
        from gridlane.nouns.authorization import Authorization

        return Authorization(self._calls)

    @cached_property
    def roles(self) -> Roles[Mode]:
        """Roles given and taken, vetoes among them."""
        from gridlane.nouns.roles import Roles

        return Roles(self._calls)

    @cached_property
    def vos(self) -> Vos[Mode]:
        """Virtual organisations."""
        from gridlane.nouns.vos import Vos

        return Vos(self._calls)

    @cached_property
    def groups(self) -> Groups[Mode]:
        """Groups of virtual organisations."""
        from gridlane.nouns.groups import Groups

        return Groups(self._calls)

    @cached_property
    def tokens(self) -> Tokens[Mode]:
        """Tokens that Gridlane signs for users."""
        from gridlane.nouns.tokens import Tokens

        return Tokens(self._calls)

    @cached_property
    def keys(self) -> Keys[Mode]:
        """Keys with which Gridlane signs its own tokens."""
        from gridlane.nouns.keys import Keys

        return Keys(self._calls)

    @cached_property
    def issuers(self) -> Issuers[Mode]:
        """Issuers whose tokens are believed."""
        from gridlane.nouns.issuers import Issuers

        return Issuers(self._calls)

    @cached_property
    def audit(self) -> Audit[Mode]:
        """Who changed the policy, when and why."""
        from gridlane.nouns.audit import Audit

        return Audit(self._calls)

    @verb
    async def whoami(self, *, timeout: Timeout = None) -> WhoAmIResponse:
        """Who the caller is to Gridlane, its VOs and roles, and until when its token is good.

        Raises:
            Unauthenticated: there is no token, or it is not acceptable.
        """
        from gridlane.nouns.service import who_am_i

        return await who_am_i(self._calls, timeout)

    @verb
    async def ping(self, *, timeout: Timeout = None) -> PingResponse:
        """How each service and each backend behind it is.

        Raises:
            Unavailable: the gateway itself does not answer; a service behind it that does not is in
                the answer.
        """
        from gridlane.nouns.service import ping

        return await ping(self._calls, timeout)


class Client(BaseClient[Sync]):
    """A client whose verbs block until they have an answer. Threads may share one.

    Parameters:
        address: "host:port", or "service=host:port" several times with commas between. None: see
            `gridlane.configuration`.
        addresses: addresses of single services ("authorization", "transfer", "workload",
            "reporting", "gateway"), over those of `address`.
        token: the token that calls are made with. None: `token_file`, else the discovery.
        token_file: a file that the token lies in; it is read again when it changes.
        ca: CA certificates (PEM) that servers are verified with. None: the system's. Loopback
            addresses are spoken to in plaintext unless this is given; all others always by TLS.
        timeout: until the answer of a call that is given no timeout, seconds or a timedelta.
        retry: when a call is made again.
        traceparent: the W3C trace that calls join. None: that of the environment's TRACEPARENT;
            without it each call begins its own.
        group: the one of the token's groups in which calls are made ("/cms/production"). None: that
            of the discovery, else the token's own choice.
        channel: a channel to use instead of those that would be made. Closed by whoever made it.

    Raises:
        ConfigurationError: what was found is not usable.
    """

    def __init__(
        self,
        address: str | None = None,
        *,
        addresses: Mapping[str, str] | None = None,
        token: str | None = None,
        token_file: str | os.PathLike[str] | None = None,
        ca: str | os.PathLike[str] | None = None,
        timeout: Timeout = DEFAULT_TIMEOUT_S,
        retry: RetryPolicy | None = None,
        traceparent: str | None = None,
        group: str | None = None,
        channel: grpc.Channel | None = None,
    ) -> None:
        from gridlane.connection import open_channels

        found = discover(
            address=address,
            addresses=addresses,
            token=token,
            token_file=token_file,
            ca=ca,
            group=group,
        )
        self._owns_channels = channel is None
        channels = (
            open_channels(found.addresses, found.ca)
            if channel is None
            else dict.fromkeys(SERVICES, channel)
        )
        super().__init__(BlockingTransport(channels), found, timeout, retry, traceparent)

    def close(self) -> None:
        """Close the connections; calls under way end with `Cancelled`."""
        if self._owns_channels:
            finish(self._calls.transport.close())

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
