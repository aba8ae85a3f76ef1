"""What the settings of a channel may be, and their forms in the contract.

Responsible for reading a channel from a request, for what an update changes, and for the messages;
without I/O. The rules of single fields stand in the contract.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from gridlane.transfer.v1 import channel_pb2
from gridlane_kit import errors
from gridlane_kit.clock import to_timestamp
from gridlane_transfer.capabilities import CHANNEL_FIELDS, EMBEDDED
from gridlane_transfer.channels.channels import (
    PREFIX,
    Channel,
    ChannelState,
    ExhaustedAction,
    Optimizer,
    OptimizerMode,
)
from gridlane_transfer.store.channels import Usage

DEFAULT_MIN_FILES: Final = 2
DEFAULT_MAX_FILES: Final = 100
"""The bounds of an optimizer that names none."""

_NEEDS: Final[Mapping[str, str]] = {
    "max_streams": "STREAMS",
    "max_bandwidth_bytes_per_second": "BANDWIDTH_LIMIT",
    **{field: missing.capability for field, missing in CHANNEL_FIELDS.items()},
}
"""The fields that ask something of a backend, and the capability that does it."""

Given = channel_pb2.Channel


def _optimizer(given: Given) -> Optimizer | None:
    if not given.HasField("optimizer"):
        return None
    asked = given.optimizer
    least = asked.min_files or DEFAULT_MIN_FILES
    # The default of the one gives way to what is said of the other.
    most = asked.max_files or max(DEFAULT_MAX_FILES, least)
    if not asked.min_files:
        least = min(least, most)
    return Optimizer(OptimizerMode(asked.mode), least, most)


def _retries(given: Given) -> int | None:
    return given.default_max_retries if given.HasField("default_max_retries") else None


def _delay_us(given: Given) -> int | None:
    if not given.HasField("default_retry_delay"):
        return None
    return given.default_retry_delay.ToMicroseconds()


_READ: Final[Mapping[str, tuple[str, Callable[[Given], Any]]]] = {
    "state": ("state", lambda given: ChannelState(given.state or ChannelState.ACTIVE)),
    "max_files": ("max_files", lambda given: given.max_files),
    "on_exhausted": (
        "on_exhausted",
        lambda given: ExhaustedAction(given.on_exhausted or ExhaustedAction.FAIL),
    ),
    "vo_shares": ("vo_shares", lambda given: dict(given.vo_shares)),
    "max_streams": ("max_streams", lambda given: given.max_streams),
    "max_bandwidth_bytes_per_second": (
        "max_bandwidth",
        lambda given: given.max_bandwidth_bytes_per_second,
    ),
    "nominal_throughput_bytes_per_second": (
        "nominal_throughput",
        lambda given: given.nominal_throughput_bytes_per_second,
    ),
    "contact": ("contact", lambda given: given.contact),
    "description": ("description", lambda given: given.description),
    "default_max_retries": ("default_max_retries", _retries),
    "default_retry_delay": ("default_retry_delay_us", _delay_us),
    "optimizer": ("optimizer", _optimizer),
}
"""The fields that can be changed and are carried out: what a channel calls each, and how it is
read.
"""

UPDATABLE: Final = frozenset(_READ) | frozenset(_NEEDS)


def new_channel(
    uid: str, name: str, given: Given, time_us: int, *, max_files: int, has: frozenset[str]
) -> Channel:
    """The channel that a request describes.

    Parameters:
        max_files: for one that does not say it.
        has: the capabilities of the backend.

    Raises:
        GridlaneError: INVALID_FIELDS, CAPABILITY_MISSING.
    """
    if given.name:
        raise errors.invalid([("channel.name", "leave it empty: channel_id names it")])
    _refuse(given, UPDATABLE, has)
    bare = Channel(
        uid=uid,
        name=name,
        source=given.source,
        target=given.target,
        state=ChannelState.ACTIVE,
        max_files=max_files,
        on_exhausted=ExhaustedAction.FAIL,
        create_us=time_us,
    )
    return _with_fields(bare, given, _READ.keys(), max_files)


def changed_fields(given: Given, mask: Sequence[str]) -> frozenset[str]:
    """Which fields an update changes (AIP-134).

    Parameters:
        mask: the paths of its mask; empty: every field that is set.

    Raises:
        GridlaneError: INVALID_FIELDS: the mask names another field.
    """
    unknown = sorted(set(mask) - UPDATABLE)
    if unknown:
        choice = ", ".join(sorted(UPDATABLE))
        raise errors.invalid([("update_mask", f"{path}: one of {choice}") for path in unknown])
    if mask:
        return frozenset(mask)
    return frozenset(field.name for field, _ in given.ListFields() if field.name in UPDATABLE)


def updated(
    stored: Channel,
    given: Given,
    fields: frozenset[str],
    *,
    max_files: int,
    has: frozenset[str],
) -> Channel:
    """A channel with the given values of some fields; one that is not set has its default.

    Parameters:
        max_files: the default of that field.
        has: the capabilities of the backend.

    Raises:
        GridlaneError: INVALID_FIELDS, CAPABILITY_MISSING.
    """
    ends = (("source", given.source, stored.source), ("target", given.target, stored.target))
    moved = [(f"channel.{end}", f"stays {was}") for end, now, was in ends if now not in ("", was)]
    if moved:
        raise errors.invalid(moved)
    _refuse(given, fields, has)
    return _with_fields(stored, given, fields & _READ.keys(), max_files)


def _with_fields(channel: Channel, given: Given, fields: Any, max_files: int) -> Channel:
    values = {_READ[field][0]: _READ[field][1](given) for field in fields}
    if not values.get("max_files", 1):
        values["max_files"] = max_files
    return replace(channel, **values)


def _refuse(given: Given, fields: frozenset[str], has: frozenset[str]) -> None:
    """Refuse what cannot be kept, and what no backend does."""
    texts = {
        "channel.contact": given.contact,
        "channel.description": given.description,
        "channel.vo_shares": "".join(given.vo_shares),
    }
    nul = [(field, "no text has a NUL") for field, text in texts.items() if "\0" in text]
    optimizer = _optimizer(given) if "optimizer" in fields else None
    if optimizer is not None and optimizer.min_files > optimizer.max_files:
        nul.append(("channel.optimizer.max_files", "is not less than min_files"))
    if nul:
        raise errors.invalid(nul)
    asked = [
        (field, capability)
        for field, capability in _NEEDS.items()
        if field in fields and getattr(given, field) and capability not in has
    ]
    if asked:
        violations = [
            (f"channel.{field}", f"needs {capability}, which no backend on it has: leave it 0")
            for field, capability in asked
        ]
        raise errors.capability_missing(violations, asked[0][1], EMBEDDED)


def channel_message(channel: Channel, usage: Usage | None = None) -> channel_pb2.Channel:
    """A channel, all of it.

    Parameters:
        usage: what is on it now; None: not told.
    """
    message = channel_pb2.Channel(
        name=PREFIX + channel.name,
        uid=channel.uid,
        source=channel.source,
        target=channel.target,
        state=channel_pb2.ChannelState.ValueType(channel.state),
        max_files=channel.max_files,
        on_exhausted=channel_pb2.ExhaustedAction.ValueType(channel.on_exhausted),
        vo_shares=channel.vo_shares,
        max_streams=channel.max_streams,
        max_bandwidth_bytes_per_second=channel.max_bandwidth,
        nominal_throughput_bytes_per_second=channel.nominal_throughput,
        contact=channel.contact,
        description=channel.description,
        revision=channel.revision,
    )
    for name, time_us in (("create_time", channel.create_us), ("update_time", channel.update_us)):
        if time_us:
            getattr(message, name).CopyFrom(to_timestamp(time_us))
    if channel.default_max_retries is not None:
        message.default_max_retries = channel.default_max_retries
    if channel.default_retry_delay_us is not None:
        delay = Duration()
        delay.FromMicroseconds(channel.default_retry_delay_us)
        message.default_retry_delay.CopyFrom(delay)
    if channel.optimizer is not None:
        message.optimizer.mode = channel_pb2.OptimizerMode.ValueType(channel.optimizer.mode)
        message.optimizer.min_files = channel.optimizer.min_files
        message.optimizer.max_files = channel.optimizer.max_files
    if usage is not None:
        message.usage.CopyFrom(_usage_message(channel, usage))
    return message


def _usage_message(channel: Channel, usage: Usage) -> channel_pb2.ChannelUsage:
    return channel_pb2.ChannelUsage(
        active_files=sum(usage.active_by_vo.values()),
        queued_files=usage.queued,
        held_files=usage.held,
        bytes_per_second=usage.bytes_per_second,
        active_files_by_vo=usage.active_by_vo,
        allowed_files=channel.places,
    )
