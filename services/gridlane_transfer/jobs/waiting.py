"""Why a file waits, and what can be done about it: the rules, as functions without I/O.

Responsible for the words of each reason, and for their order: what must be cured first comes first.
The facts are gathered by `explanations`. Of the contract's reasons those are told that can hold in
this version: nothing here waits for credentials, quotas, tape or parents.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from gridlane.transfer.v1 import file_explanation_pb2, transfer_job_pb2
from gridlane.type.v1 import explanation_pb2, failure_pb2
from gridlane_kit.clock import to_timestamp
from gridlane_kit.policy import Policy, WorkAction
from gridlane_transfer import messages
from gridlane_transfer.backends.base import BACKENDS, BackendReport
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.channels.channels import Channel, ChannelState
from gridlane_transfer.channels.scheduling import vo_weight
from gridlane_transfer.moving import rights
from gridlane_transfer.moving.file_transfers import is_logical, source_of
from gridlane_transfer.states import FILE_FINAL, FileState, JobKind
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import StorageElement, StorageElements
from gridlane_transfer.store.queues import Running
from gridlane_transfer.store.tables import FileRow, JobRow

WAITING: Final = (
    frozenset(FileState)
    - FILE_FINAL
    - {
        FileState.ACTIVE,
        FileState.CANCELING,
        FileState.ARCHIVING,
    }
)
"""The states of files that wait."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What holds of a service at a moment.

    Parameters:
        known: the catalogue's answers to the logical names that the files come from.
        running_of_vos: how many files move, by channel uid and VO.
        capacity: how many files the backend moves at once, all together.
        in_work: the numbers of the files to whose targets others write now.
    """

    channels: Mapping[str, Channel]
    elements: StorageElements
    known: Mapping[str, LogicalFile]
    running: Running
    running_of_vos: Mapping[tuple[str, str], int]
    policy: Policy
    backend: BackendReport
    capacity: int
    in_work: Collection[int]
    time_us: int


@dataclass(frozen=True, slots=True)
class _Waits:
    """A file that waits, under the facts."""

    file: FileRow
    job: JobRow
    facts: Facts

    @property
    def channel(self) -> Channel | None:
        """The one that it lies on, unless that is no more."""
        found = self.facts.channels.get(self.file.channel_uid)
        return None if found is None or found.deleted else found

    @property
    def since_us(self) -> int:
        """Since when it has waited."""
        return max(self.file.end_us or 0, self.job.create_us)

    def say(
        self,
        reason: "explanation_pb2.WaitReason.ValueType",
        message: str,
        cure: str = "",
        resource: str = "",
        expected_us: int | None = None,
    ) -> explanation_pb2.Explanation:
        """An explanation."""
        told = explanation_pb2.Explanation(
            reason=reason,
            message=message,
            cure=cure,
            resource=resource,
            since_time=to_timestamp(self.since_us),
        )
        if expected_us is not None:
            told.expected_time.CopyFrom(to_timestamp(expected_us))
        return told


Told = Iterator[explanation_pb2.Explanation]
_E = explanation_pb2


def explain(file: FileRow, job: JobRow, facts: Facts) -> file_explanation_pb2.FileExplanation:
    """Everything that holds up a file that waits, at least one thing."""
    waits = _Waits(file, job, facts)
    found = [told for rule in _rules_for(waits) for told in rule(waits)]
    return file_explanation_pb2.FileExplanation(
        file=f"{messages.PREFIX}{job.uuid}/files/{file.n}",
        state=transfer_job_pb2.FileTransferState.ValueType(file.state),
        explanations=found or [_turn(waits)],
    )


def _held(waits: _Waits) -> Told:
    """Held, by what its failure says."""
    if waits.file.state != FileState.HELD:
        return
    failure = failure_pb2.Failure.FromString(waits.file.failure or b"")
    if messages.lacks_permission(waits.file):
        yield waits.say(_E.WAIT_REASON_PERMISSION_LOST, failure.message, failure.cure)
        return
    message = failure.message or "it was held by a manager"
    yield waits.say(
        _E.WAIT_REASON_HELD,
        f"its retries are spent: {message}",
        "have a manager of its VO or channel release it, or give it up",
    )


def _right(waits: _Waits) -> Told:
    """Its owner's right to have it moved."""
    state = FileState(waits.file.state)
    if state is FileState.HELD:
        return
    action = rights.action(waits.job, waits.facts.policy, state)
    if action is not WorkAction.KEEP:
        failed = rights.stopped(waits.job, waits.facts.policy, action).failure
        yield waits.say(_E.WAIT_REASON_PERMISSION_LOST, failed.message, failed.cure)


def _way(waits: _Waits) -> Told:
    """A channel that is there, and starts files."""
    channel = waits.channel
    if channel is None:
        source, target = waits.file.source_element, waits.file.target_element
        yield waits.say(
            _E.WAIT_REASON_NO_CHANNEL,
            f"no channel leads from {source or 'any storage element'} to {target}",
            "have an administrator add one",
        )
    elif channel.state is not ChannelState.ACTIVE:
        yield waits.say(
            _E.WAIT_REASON_CHANNEL_INACTIVE,
            f"channel {channel.name} is {channel.state.name}: it starts no files",
            "have its manager switch it on",
            f"channels/{channel.name}",
        )


def _bans(waits: _Waits) -> Told:
    """Bans of the storage elements that it moves between."""
    if not _has_another_copy(waits):
        yield from _banned(waits, waits.file.source_element, Operation.READ)
    yield from _banned(waits, waits.file.target_element, Operation.WRITE)


def _removal_bans(waits: _Waits) -> Told:
    """Bans of the storage element that it is removed from."""
    yield from _banned(waits, waits.file.source_element, Operation.REMOVE)


def _has_another_copy(waits: _Waits) -> bool:
    """Whether a copy of its logical source may be read elsewhere than where it waits."""
    logical = waits.facts.known.get(source_of(waits.file))
    if logical is None:
        return False
    others = {one.storage_element for one in logical.replicas} - {waits.file.source_element}
    asked = waits.job.vo, waits.facts.time_us
    return any(not waits.facts.elements.barred(one, Operation.READ, *asked) for one in others)


def _banned(waits: _Waits, element: str, operation: Operation) -> Told:
    if waits.file.state == FileState.HELD or not element:
        return
    found = waits.facts.elements.barred(element, operation, waits.job.vo, waits.facts.time_us)
    if found is not None:
        word = operation.name.lower().replace("_", " ")
        yield waits.say(
            _E.WAIT_REASON_STORAGE_BANNED,
            f"{element} is banned for the operation {word}: {found.ban.reason}",
            "it goes on by itself when the ban ends",
            element,
            found.ban.expires_us,
        )


def _replica(waits: _Waits) -> Told:
    """A copy of a logical source."""
    name = source_of(waits.file)
    if not is_logical(name):
        return
    logical = waits.facts.known.get(name)
    if logical is None or not logical.replicas:
        yield waits.say(
            _E.WAIT_REASON_NO_REPLICA,
            f"no replica of {name} is registered",
            "register one, or put the file",
        )


def _share(waits: _Waits) -> Told:
    """The share of its VO on the channel."""
    channel = waits.channel
    if channel is None or not channel.vo_shares or waits.file.state == FileState.HELD:
        return
    vo = waits.job.vo
    weight = vo_weight(channel.vo_shares, vo)
    resource = f"vos/{vo}"
    if weight == 0:
        yield waits.say(
            _E.WAIT_REASON_SHARE_SPENT,
            f"the VO {vo} has no share of channel {channel.name}",
            "have the channel's manager give it one",
            resource,
        )
        return
    mine = waits.facts.running_of_vos.get((channel.uid, vo), 0)
    if _is_full(waits, channel) and mine >= _places_of(channel, weight):
        yield waits.say(
            _E.WAIT_REASON_SHARE_SPENT,
            f"the VO {vo} has its share of channel {channel.name}:"
            f" {mine} of {channel.places} places",
            resource=resource,
        )


def _places_of(channel: Channel, weight: int | None) -> int:
    """How many places a weight comes to; a VO without one gets what others leave idle."""
    whole = sum(channel.vo_shares.values())
    return 0 if weight is None or not whole else channel.places * weight // whole


def _limits(waits: _Waits) -> Told:
    """The limits of its storage elements."""
    if waits.file.state not in (FileState.READY, FileState.RETRYING):
        return
    running = waits.facts.running
    ends: list[tuple[str, Callable[[StorageElement], int], int, str]] = [
        (
            waits.file.source_element,
            lambda element: element.limits.max_active_out,
            running.out_of[waits.file.source_element],
            "go out of",
        ),
        (
            waits.file.target_element,
            lambda element: element.limits.max_active_in,
            running.into[waits.file.target_element],
            "go into",
        ),
    ]
    for name, limit_of, active, go in ends:
        element = waits.facts.elements.get(name) if name else None
        limit = 0 if element is None else limit_of(element)
        if limit and active >= limit:
            yield waits.say(
                _E.WAIT_REASON_STORAGE_LIMIT,
                f"{active} of {limit} files {go} {name}",
                resource=name,
            )


def _full(waits: _Waits) -> Told:
    """A place on its channel."""
    channel = waits.channel
    if channel is None or waits.file.state == FileState.HELD or not _is_full(waits, channel):
        return
    active = waits.facts.running.on[channel.uid]
    yield waits.say(
        _E.WAIT_REASON_CHANNEL_FULL,
        f"channel {channel.name}: {active} of {channel.places} files are active",
        resource=f"channels/{channel.name}",
    )


def _is_full(waits: _Waits, channel: Channel) -> bool:
    return waits.facts.running.on[channel.uid] >= channel.places


def _retry(waits: _Waits) -> Told:
    """The time before it is tried again."""
    if waits.file.state != FileState.RETRYING or waits.file.due_us <= waits.facts.time_us:
        return
    failure = failure_pb2.Failure.FromString(waits.file.failure or b"")
    yield waits.say(
        _E.WAIT_REASON_RETRY_DELAY,
        f"attempt {waits.file.attempt} failed: {failure.message}",
        failure.cure,
        expected_us=waits.file.due_us,
    )


def _registration(waits: _Waits) -> Told:
    """What kept its bytes, which are at the target, from being registered."""
    failure = failure_pb2.Failure.FromString(waits.file.failure or b"")
    message = failure.message or "its bytes are there, and the catalogue is owed"
    yield waits.say(
        _E.WAIT_REASON_RETRY_DELAY, message, failure.cure, expected_us=waits.file.due_us
    )


def _writer(waits: _Waits) -> Told:
    """Who else writes to its target, or removes what is there."""
    due = waits.file.state in (FileState.READY, FileState.RETRYING)
    if due and waits.file.number in waits.facts.in_work:
        name = waits.file.target or waits.file.source
        yield waits.say(
            _E.WAIT_REASON_PREDECESSOR,
            f"something else is being written to {name}, or removed from there",
        )


def _down(waits: _Waits) -> Told:
    """A backend that answers."""
    backend = waits.facts.backend
    if not backend.reachable:
        yield waits.say(
            _E.WAIT_REASON_BACKEND_DOWN,
            f"the backend {backend.name} does not answer: {backend.message}",
            resource=BACKENDS + backend.name,
        )


def _queue(waits: _Waits) -> Told:
    """A place in the backend."""
    backend, active = waits.facts.backend, waits.facts.running.on.total()
    due = waits.file.state in (FileState.READY, FileState.RETRYING)
    if due and backend.reachable and active >= waits.facts.capacity:
        yield waits.say(
            _E.WAIT_REASON_BACKEND_QUEUE,
            f"the backend {backend.name} moves {active} files, as many as it can",
            resource=BACKENDS + backend.name,
        )


def _turn(waits: _Waits) -> explanation_pb2.Explanation:
    """What nothing holds up is about to start."""
    if waits.file.state == FileState.SUBMITTED:
        message = "it is being let onto its channel"
    else:
        message = "nothing holds it up: it is about to start"
    return waits.say(_E.WAIT_REASON_UNSPECIFIED, message, expected_us=waits.facts.time_us)


_Rules = tuple[Callable[[_Waits], Told], ...]
# Each in the order in which things are to be cured: people first, then time.
_OF_MOVES: Final[_Rules] = (
    _held,
    _right,
    _way,
    _bans,
    _replica,
    _share,
    _limits,
    _full,
    _retry,
    _writer,
    _down,
    _queue,
)
_OF_REMOVALS: Final[_Rules] = (_held, _right, _removal_bans, _retry, _writer, _down)
_OF_REGISTRATIONS: Final[_Rules] = (_registration,)


def _rules_for(waits: _Waits) -> _Rules:
    if waits.file.state == FileState.REGISTERING:
        return _OF_REGISTRATIONS
    return _OF_REMOVALS if waits.job.kind == JobKind.DELETION else _OF_MOVES
