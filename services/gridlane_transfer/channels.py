"""Channels: managed ways between storage ends, with limits of their own (gLite FTS).

Responsible for what a channel is and for which one a file lies on. A channel's uid never changes:
role bindings hang on it. How many files run on one is counted where they are claimed (`store`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

PREFIX = "channels/"
DEFAULT_NAME = "default"
_ANY = "*"


class ChannelState(IntEnum):
    """`gridlane.transfer.v1.ChannelState`, by number."""

    ACTIVE = 1
    DRAIN = 2
    INACTIVE = 3
    STOPPED = 4


class ExhaustedAction(IntEnum):
    """`gridlane.transfer.v1.ExhaustedAction`, by number: what follows spent retries."""

    FAIL = 1
    HOLD = 2


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel. `source` and `target` are names of storage elements or "*"."""

    uid: str
    name: str
    source: str
    target: str
    state: ChannelState
    max_files: int
    on_exhausted: ExhaustedAction

    @property
    def starts_files(self) -> bool:
        """Whether files start on it now."""
        return self.state is ChannelState.ACTIVE

    def leads(self, source: str, target: str) -> bool:
        """Whether it leads from one element to another; an empty `source` is not known yet."""
        return self.source in (_ANY, source) and self.target in (_ANY, target)


class Channels:
    """All channels, the most particular first."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._ordered = sorted(
            channels,
            key=lambda channel: (channel.source == _ANY, channel.target == _ANY, channel.name),
        )
        self._by_uid = {channel.uid: channel for channel in channels}

    def all(self) -> Sequence[Channel]:
        """Every channel."""
        return self._ordered

    def by_uid(self, uid: str) -> Channel:
        """A channel by its uid."""
        return self._by_uid[uid]

    def by_name(self, name: str) -> Channel | None:
        """A channel by its resource name, "channels/{name}"."""
        plain = name.removeprefix(PREFIX)
        return next((channel for channel in self._ordered if channel.name == plain), None)

    def name_of(self, uid: str) -> str:
        """The resource name of a channel, "channels/{name}"; empty when there is no such
        channel.
        """
        channel = self._by_uid.get(uid)
        return "" if channel is None else PREFIX + channel.name

    def choose(self, source: str, target: str) -> Channel | None:
        """The channel for a file between two storage elements, given by their plain names."""
        for channel in self._ordered:
            if channel.leads(source, target):
                return channel
        return None
