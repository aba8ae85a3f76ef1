"""Channels: managed ways between storage ends, with limits of their own (gLite FTS).

Responsible for what a channel is and for which one a file lies on. A channel's uid never changes:
role bindings hang on it. Who changes channels is `channel_admin`'s, which files start on one
`scheduling`'s; how many run is counted where they are claimed (`store`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

from gridlane_transfer.channels.scheduling import ActivityWeights

PREFIX = "channels/"
DEFAULT_NAME = "default"
DEFAULT_RETRIES: Final = 3
ANY: Final = "*"
"""The end of a channel that leads from, or to, any storage element."""
NO_CHANNEL: Final = ""
"""Stands for the uid of the channel of files that go nowhere: those that are removed."""


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


class OptimizerMode(IntEnum):
    """`gridlane.transfer.v1.OptimizerMode`, by number."""

    FIXED = 1
    CONSERVATIVE = 2
    MODERATE = 3
    AGGRESSIVE = 4


@dataclass(frozen=True, slots=True)
class Optimizer:
    """How the number of files at once follows what the way bears, between two bounds."""

    mode: OptimizerMode
    min_files: int
    max_files: int

    def bounded(self, files: int) -> int:
        """So many files, as far as the bounds let."""
        return max(self.min_files, min(self.max_files, files))


@dataclass(frozen=True, slots=True)
class Channel:
    """A channel. `source` and `target` are names of storage elements or "*"; limits that are 0 are
    none.

    Parameters:
        vo_shares: weights by VO.
        default_max_retries: None: `DEFAULT_RETRIES`.
        default_retry_delay_us: None: as the service's settings say.
        allowed_files: what the optimizer has come to; None before it has looked.
        create_us, update_us: microseconds since 1970-01-01 UTC.
        deleted: it is no more, and known for those that meet its uid.
    """

    uid: str
    name: str
    source: str
    target: str
    state: ChannelState
    max_files: int
    on_exhausted: ExhaustedAction
    vo_shares: Mapping[str, int] = field(default_factory=dict)
    max_streams: int = 0
    max_bandwidth: int = 0
    nominal_throughput: int = 0
    contact: str = ""
    description: str = ""
    default_max_retries: int | None = None
    default_retry_delay_us: int | None = None
    optimizer: Optimizer | None = None
    allowed_files: int | None = None
    create_us: int = 0
    update_us: int = 0
    revision: int = 0
    deleted: bool = False

    @property
    def starts_files(self) -> bool:
        """Whether files start on it now."""
        return self.state is ChannelState.ACTIVE and not self.deleted

    @property
    def places(self) -> int:
        """How many files it may move at once now."""
        if self.optimizer is None or self.optimizer.mode is OptimizerMode.FIXED:
            return self.max_files
        found = self.max_files if self.allowed_files is None else self.allowed_files
        return self.optimizer.bounded(found)

    @property
    def most_places(self) -> int:
        """How many files it ever moves at once by its settings."""
        if self.optimizer is None or self.optimizer.mode is OptimizerMode.FIXED:
            return self.max_files
        return self.optimizer.max_files

    @property
    def max_retries(self) -> int:
        """How often a file is tried again whose job does not say it."""
        retries = self.default_max_retries
        return DEFAULT_RETRIES if retries is None else retries

    def leads(self, source: str, target: str) -> bool:
        """Whether it leads from one element to another; an empty `source` is not known yet."""
        return self.source in (ANY, source) and self.target in (ANY, target)


class Channels:
    """All channels, the most particular first, and the shares of activities; as they were read
    last.
    """

    def __init__(
        self, channels: Sequence[Channel] = (), weights: ActivityWeights | None = None
    ) -> None:
        self._subscribers: list[Callable[[], None]] = []
        self.replace((channels, weights or ActivityWeights()))

    def replace(self, found: tuple[Sequence[Channel], ActivityWeights]) -> None:
        """Put in force what was read: channels, those that are no more among them, and shares."""
        channels, self.weights = found
        self._ordered = sorted(
            (channel for channel in channels if not channel.deleted),
            key=lambda channel: (channel.source == ANY, channel.target == ANY, channel.name),
        )
        self._by_uid = {channel.uid: channel for channel in channels}
        self._by_name = {channel.name: channel for channel in self._ordered}
        self._chosen: dict[tuple[str, str], Channel | None] = {}
        for changed in self._subscribers:
            changed()

    def subscribe(self, changed: Callable[[], None]) -> None:
        """Call `changed`, in the event loop, after each change of channels or shares."""
        self._subscribers.append(changed)

    def all(self) -> Sequence[Channel]:
        """Every channel."""
        return self._ordered

    def by_uid(self, uid: str) -> Channel:
        """A channel by its uid; also one that was deleted."""
        return self._by_uid[uid]

    def by_name(self, name: str) -> Channel | None:
        """A channel by its resource name, "channels/{name}"."""
        return self._by_name.get(name.removeprefix(PREFIX))

    def name_of(self, uid: str) -> str:
        """The resource name of a channel, "channels/{name}"; empty when there is no such
        channel.
        """
        channel = self._by_uid.get(uid)
        return "" if channel is None or channel.deleted else PREFIX + channel.name

    def choose(self, source: str, target: str) -> Channel | None:
        """The channel for a file between two storage elements, given by their plain names."""
        ends = source, target
        if ends not in self._chosen:
            leading = (channel for channel in self._ordered if channel.leads(*ends))
            self._chosen[ends] = next(leading, None)
        return self._chosen[ends]
