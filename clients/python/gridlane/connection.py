"""Channels to the servers: plaintext to this machine, TLS to every other.

Responsible for credentials and options of gRPC channels. A token never travels unencrypted over a
network: there is no option that would allow it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import grpc

from gridlane.configuration import SERVICES, Addresses, ConfigurationError, is_loopback

Channel = TypeVar("Channel")

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.primary_user_agent", "gridlane-python"),
    # Repeating is decided in calls.py, which knows deadlines and what is safe.
    ("grpc.enable_retries", 0),
    # A server that restarts is found again soon.
    ("grpc.initial_reconnect_backoff_ms", 100),
    # What one attempt to connect may take, whatever its name says: far servers, TLS, busy machines.
    ("grpc.min_reconnect_backoff_ms", 10_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Behind one name there may be several servers ("dns:///workload.gridlane.svc:50054").
    ("grpc.lb_policy_name", "round_robin"),
)
# What stays on this machine has no business with the environment's http_proxy.
_NO_PROXY = ("grpc.enable_http_proxy", 0)


def open_channels(addresses: Addresses, ca: Path | None) -> Mapping[str, grpc.Channel]:
    """A blocking channel for each service package; services at one address share one.

    Parameters:
        addresses: where the services are.
        ca: CA certificates (PEM) that servers are verified with; None for the system's.

    Raises:
        ConfigurationError: `ca` cannot be read.
    """
    return _share(addresses, ca, grpc.insecure_channel, grpc.secure_channel)


def open_aio_channels(addresses: Addresses, ca: Path | None) -> Mapping[str, grpc.aio.Channel]:
    """As `open_channels`, for the running event loop."""
    return _share(addresses, ca, grpc.aio.insecure_channel, grpc.aio.secure_channel)


def _share(
    addresses: Addresses,
    ca: Path | None,
    plain: Callable[..., Channel],
    secure: Callable[..., Channel],
) -> Mapping[str, Channel]:
    by_address = {
        address: _open(address, ca, plain, secure)
        for address in {addresses.of(service) for service in SERVICES}
    }
    return {service: by_address[addresses.of(service)] for service in SERVICES}


def _open(
    address: str, ca: Path | None, plain: Callable[..., Channel], secure: Callable[..., Channel]
) -> Channel:
    """Plaintext needs a loopback address and no CA: naming a CA asks for TLS on loopback too."""
    if ca is None and is_loopback(address):
        return plain(address, options=(*_OPTIONS, _NO_PROXY))
    return secure(address, grpc.ssl_channel_credentials(_roots(ca)), options=_OPTIONS)


def _roots(ca: Path | None) -> bytes | None:
    if ca is None:
        return None
    try:
        return ca.read_bytes()
    except OSError as error:
        raise ConfigurationError(
            f"the CA file {ca} (GRIDLANE_CA) cannot be read: {error}"
        ) from error
