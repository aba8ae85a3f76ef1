"""Channels: the connections of one service to the replicas of one peer.

Responsible for what is asked of gRPC (balance, keepalive, how soon a lost replica is tried again),
for opening at the first call and for taking up new certificates. Not for calls (`wire_peers`).
"""

import asyncio
import json
import logging
from typing import Any, Final

from grpc import aio

from gridlane_kit.peers import UnreachablePeerError
from gridlane_kit.settings import is_loopback
from gridlane_kit.tls import ClientTls
from gridlane_kit.wire import MAX_MESSAGE_BYTES

RENEWAL_PERIOD_S: Final = 10.0
"""How often the certificate files are looked at."""
OLD_CHANNEL_S: Final = 60.0
"""What calls under way get when new certificates replace their channel; streams resume then."""

_SERVICE_CONFIG: Final = json.dumps({"loadBalancingConfig": [{"round_robin": {}}]})
_OPTIONS: Final = (
    ("grpc.service_config", _SERVICE_CONFIG),
    ("grpc.service_config_disable_resolution", 1),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # A peer that vanished without a word is noticed within both; servers allow a ping each 10 s.
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.http2.ping_timeout_ms", 10_000),  # it is this one that counts; a minute by itself
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),  # 0: any number, a quiet stream is no reason to stop
    # A replica that comes back, or a new one in the name service, is found within seconds.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    ("grpc.min_reconnect_backoff_ms", 3_000),  # what an attempt to connect gets, in spite of it
    ("grpc.dns_min_time_between_resolutions_ms", 3_000),
    # No connection, and no backoff, shared with whoever else calls the same address.
    ("grpc.use_local_subchannel_pool", 1),
    # Peers are near: a proxy for the outside, set in the environment, is not for them.
    ("grpc.enable_http_proxy", 0),
)


_log = logging.getLogger(__name__)


class PlaintextError(UnreachablePeerError):
    """A peer elsewhere would be called without TLS. Seen at start."""


class ChannelClosedError(Exception):
    """The channel was closed: the process stops."""


class PeerChannel:
    """The channel to one peer, opened at the first call.

    Parameters:
        address: see `target_of`.
        tls: certificates; None for plaintext.

    Raises:
        PlaintextError: plaintext would leave this machine.
    """

    def __init__(self, address: str, tls: ClientTls | None) -> None:
        if tls is None and not all(is_loopback(host) for host in hosts_of(address)):
            raise PlaintextError(
                f"{address} is not loopback and there is no TLS: give the roots (PEM) of the peers'"
                " certificates"
            )
        self.target = target_of(address)
        self._tls = tls
        self._credentials: Any = None
        self._look_again = 0.0
        self._channel: aio.Channel | None = None
        self._callables: dict[tuple[str, str], Any] = {}
        self._closing: set[asyncio.Task[None]] = set()
        self.closed = False
        """The process stops: nothing is called any more."""
        self._answers = True

    def callable(self, form: str, path: str) -> Any:
        """Returns gRPC's callable of a method, bytes in and bytes out.

        Parameters:
            form: "unary_unary", "unary_stream", "stream_unary" or "stream_stream".
            path: "/package.Service/Method".

        Raises:
            ChannelClosedError: after `close`.
        """
        if self.closed:
            raise ChannelClosedError
        if self._channel is None or self._tls is not None:
            self._open(asyncio.get_running_loop().time())
        found = self._callables.get((form, path))
        if found is None:
            found = self._callables[form, path] = getattr(self._channel, form)(path)
        return found

    def note(self, answers: bool, why: str = "") -> None:
        """Takes note of whether the peer answers, and writes a line when that changes."""
        if answers is self._answers:
            return
        self._answers = answers
        if answers:
            _log.info("%s answers again", self.target)
        else:
            _log.warning("%s does not answer: %s", self.target, why)

    async def close(self, grace_s: float) -> None:
        """Closes the channel; calls under way get `grace_s` seconds."""
        self.closed = True
        for task in self._closing:
            task.cancel()
        await asyncio.gather(*self._closing, return_exceptions=True)
        if self._channel is not None:
            await self._channel.close(grace_s)

    def _open(self, now: float) -> None:
        """Opens the channel, or another one when there are new certificates."""
        if self._channel is not None and now < self._look_again:
            return
        self._look_again = now + RENEWAL_PERIOD_S
        if self._tls is None:
            self._replace(aio.insecure_channel(self.target, _OPTIONS))
            return
        credentials = self._tls.current()
        if credentials is not self._credentials:
            self._credentials = credentials
            self._replace(aio.secure_channel(self.target, credentials, _OPTIONS))

    def _replace(self, channel: aio.Channel) -> None:
        old, self._channel = self._channel, channel
        self._callables = {}
        if old is not None:
            task = asyncio.create_task(old.close(OLD_CHANNEL_S), name="old-channel")
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)


def hosts_of(address: str) -> list[str]:
    """Returns the hosts of a gRPC target: of each "host:port" in it, whatever its scheme."""
    before, separator, after = address.partition("://")
    places = after.rpartition("/")[2] if separator else before
    return [place.rpartition(":")[0] for place in places.split(",")]


def target_of(address: str) -> str:
    """Returns gRPC's target: an address without a scheme is looked up by DNS, all its replicas."""
    return address if "://" in address else f"dns:///{address}"
