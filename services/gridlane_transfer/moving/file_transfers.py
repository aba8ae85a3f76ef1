"""File transfers: how one file is to be moved, and what becomes of it then.

Responsible for the rules of a single file, as functions without I/O: the order for the mover
(sources, expected content, what is verified) and the state that follows from the mover's answer.
There is ONE retry budget, the job's `max_retries` (or that of the file's channel) for each file; no
layer below tries again. A round over several sources counts as one try (`alternatives`), and the
hops of a file share its budget (`routes`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gridlane_transfer.backends.base import Location, Moved, MoveOrder
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.channels.channels import Channel, ExhaustedAction
from gridlane_transfer.jobs.options import Options, options_of
from gridlane_transfer.moving import alternatives, copies, routes
from gridlane_transfer.moving.alternatives import (
    OF_THE_SOURCE,
    Alternatives,
    Order,
    Strategy,
)
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.source_order import SourceOrder
from gridlane_transfer.states import FileState
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import PREFIX, Located, StorageElements
from gridlane_transfer.store.tables import FileRow, JobRow

# Numbers of `VerifyMode` and `OverwriteMode`.
VERIFY_BOTH, VERIFY_SOURCE, VERIFY_TARGET, VERIFY_NONE = 1, 2, 3, 4
OVERWRITE_NEVER, OVERWRITE_ALWAYS, OVERWRITE_ON_RETRY, OVERWRITE_WHEN_DIFFERENT = 1, 2, 3, 5

DEFAULT_CHECKSUM = "ADLER32"
"""What is computed when nobody names an algorithm: the field's default."""

_LFN = "LFN:"


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long a file waits before it is tried again, seconds: doubling from the first to the
    longest.
    """

    first_s: float
    longest_s: float

    def delay_us(self, retries: int) -> int:
        """The wait before the retry after `retries` others, microseconds."""
        # 2^30 times anything is beyond every longest wait.
        seconds = min(self.first_s * 2.0 ** min(retries, 30), self.longest_s)
        return round(seconds * 1_000_000)

    def wait_us(self, job: JobRow, channel: Channel, retries: int) -> int:
        """The same as its job says, else as its channel does, else by this policy."""
        delays = (options_of(job.options).retry_delay_us, channel.default_retry_delay_us)
        told = next((delay for delay in delays if delay is not None), None)
        return self.delay_us(retries) if told is None else told


@dataclass(frozen=True, slots=True)
class Next:
    """What becomes of a file whose attempt failed.

    Parameters:
        retry: whether a retry is spent on it.
        sources: the file's, with the next one chosen; None when they stay as they are.
    """

    state: FileState
    retry: bool = False
    sources: Alternatives | None = None


@dataclass(frozen=True, slots=True)
class Budget:
    """The retries of a file.

    Parameters:
        spent: how many were before.
        most: how many there are.
        exhausted: the channel's answer to spent retries (gLite: Failed or Hold).
    """

    spent: int
    most: int
    exhausted: ExhaustedAction


def budget(file: FileRow, job: JobRow, channel: Channel) -> Budget:
    """A file's retries: as many as its job says, else as its channel does."""
    most = channel.max_retries if job.max_retries < 0 else job.max_retries
    return Budget(file.retries, most, channel.on_exhausted)


def is_logical(name: str) -> bool:
    """Whether a name is a logical file name."""
    return name.startswith(_LFN)


def may_replace(files: int, jobs: int) -> bool:
    """Whether an existing target may be replaced, by some attempt.

    Parameters:
        files, jobs: the `OverwriteMode` of the file and of its job.
    """
    return (files or jobs) not in (0, OVERWRITE_NEVER)


def replaces(file: FileRow, job: JobRow, earlier: int) -> bool:
    """Whether an attempt replaces an existing target.

    Parameters:
        earlier: how many attempts on the way to that target were before it.
    """
    if file.route is not None:
        route = routes.read(file.route)
        if not route.is_last(file.hop):
            return not route.stop(file.hop).stays or options_of(job.options).overwrite_intermediate
    mode = file.overwrite or job.overwrite
    if mode == OVERWRITE_ON_RETRY:
        return earlier > 0
    return mode != OVERWRITE_NEVER


def transferred(moved: Moved, file: FileRow, job: JobRow) -> int:
    """How many bytes an attempt that ended well has moved: none when its job asks for what differs
    alone and the target was right; what an attempt before it left unheard counts as its own.
    """
    spared = moved.adopted and (file.overwrite or job.overwrite) == OVERWRITE_WHEN_DIFFERENT
    return 0 if spared and attempts_of_hop(file) <= 1 else moved.size_bytes


def attempts_of_hop(file: FileRow) -> int:
    """How often a file was started on the way to its present target."""
    return file.attempt - (0 if file.route is None else routes.read(file.route).begun)


def is_spared(failed: Failed, file: FileRow) -> bool:
    """Whether an attempt spends no retry: the first one to a target, which ended with several that
    were moved together. Nobody knows whose fault that was; tried again, each is alone.
    """
    return failed.together and attempts_of_hop(file) <= 1


def names_to_resolve(file: FileRow) -> list[str]:
    """The logical names that a file's order depends on."""
    names = logical_sources(file)
    return [*names, file.target_lfn] if file.target_lfn else names


def logical_sources(file: FileRow) -> list[str]:
    """The logical names that a file may be read by."""
    return [name for name in _source_names(file) if is_logical(name)]


def _source_names(file: FileRow) -> list[str]:
    """What may be read: the source, those beside it, or the stop before."""
    several = alternatives_of(file)
    return [source_of(file)] if several is None else [one.name for one in several.sources]


def alternatives_of(file: FileRow) -> Alternatives | None:
    """What may be read where there are several names for it, or an order among its copies; None on
    the way, where the stop before is read.
    """
    if file.alternatives is None or file.hop > 1:
        return None
    return alternatives.read(file.alternatives)


def source_of(file: FileRow) -> str:
    """The name of what is read now: the source, the one of several, or the stop before."""
    several = alternatives_of(file)
    if several is not None:
        return several.present.name
    if file.route is not None and file.hop > 1:
        return routes.read(file.route).stop(file.hop - 1).url
    return file.source


def after_failure(
    state: FileState,
    failed: Failed,
    budget: Budget,
    sources: Alternatives | None = None,
    order: Order | None = None,
    *,
    spared: bool = False,
) -> Next:
    """The state that follows a failed attempt.

    Parameters:
        state: the file's, ACTIVE or CANCELING.
        sources: what may be read, where there are several names for it; then another one is tried
            when the failure lies with the present one, without spending a retry.
        order: which of the sources comes first; needed with them.
        spared: whether it is tried again as it is, without spending anything.
    """
    if state is FileState.CANCELING or failed.failure_class is FailureClass.CANCELED:
        return Next(FileState.CANCELED)
    if spared:
        return Next(FileState.RETRYING)
    if sources is not None and order is not None and failed.failure_class in OF_THE_SOURCE:
        following = sources.after(order, recoverable=failed.recoverable)
        if following is None:
            return Next(FileState.FAILED)
        chosen, new_round = following
        if not new_round:
            return Next(FileState.RETRYING, sources=chosen)
        return _after_recoverable(budget, chosen)
    if not failed.recoverable:
        return Next(FileState.FAILED)
    return _after_recoverable(budget)


def _after_recoverable(budget: Budget, sources: Alternatives | None = None) -> Next:
    if budget.spent < budget.most:
        return Next(FileState.RETRYING, retry=True, sources=sources)
    held = budget.exhausted is ExhaustedAction.HOLD
    return Next(FileState.HELD if held else FileState.FAILED, sources=sources if held else None)


def plan(
    file: FileRow,
    job: JobRow,
    elements: StorageElements,
    known: Mapping[str, LogicalFile],
    computable: frozenset[str],
    order: SourceOrder | None = None,
) -> MoveOrder | Failed:
    """The order for an attempt.

    Parameters:
        file: as claimed: `lease_epoch` is the attempt's.
        known: the catalogue's answers to `names_to_resolve`.
        computable: the checksums that the mover computes.
        order: in which order the copies of a logical source are tried; None: the catalogue's.

    Returns:
        The order, or why there cannot be one: class CATALOGUE when a name cannot be resolved or the
        target's is taken by other bytes, BACKEND_REFUSED when no element serves an end any more.
    """
    target = elements.locate(
        file.target_url, internal=True, own=file.hop > 0, operation=Operation.WRITE
    )
    if target is None:
        return _unserved(file.target)
    asked = options_of(job.options)
    sources = _sources(file, elements, known, asked.protocols)
    if isinstance(sources, Failed):
        return sources
    sources = [source for source in sources if not copies.is_one_file(source, target.location)]
    if not sources:
        return Failed(
            FailureClass.BACKEND_REFUSED,
            f"source and target are the same file: {file.target}",
            "choose another target",
        )
    if order is not None and len(sources) > 1:
        sources = _ordered(sources, file, job, order)
    content = _content(file, known, computable)
    if isinstance(content, Failed):
        return content
    expected, size_bytes = content
    strict = _is_strict(asked, target, elements)
    verify = VERIFY_NONE if strict else job.verify
    mode = file.overwrite or job.overwrite
    earlier = attempts_of_hop(file)
    return MoveOrder(
        number=file.number,
        epoch=file.lease_epoch,
        sources=sources,
        target=_shown_as(_name_of_end(file, file.hop), target),
        overwrite=replaces(file, job, earlier),
        verify_source=verify in (VERIFY_BOTH, VERIFY_SOURCE),
        verify_target=verify in (VERIFY_BOTH, VERIFY_TARGET),
        size_bytes=None if strict else size_bytes,
        expected={} if verify == VERIFY_NONE else expected,
        checksums=_computed(file, expected, known, computable),
        resumed=earlier > 0 or mode == OVERWRITE_WHEN_DIFFERENT,
        streams=asked.streams,
        timeout_s=None if asked.timeout_us is None else asked.timeout_us / 1_000_000,
        disable_cleanup=asked.disable_cleanup,
        strict_copy=strict,
        scitag=file.scitag or 0,
    )


def _is_strict(asked: Options, target: Located, elements: StorageElements) -> bool:
    """Whether nothing but the copy is done: as the job says, else the target's element."""
    if asked.strict_copy is not None:
        return asked.strict_copy
    element = elements.get(target.location.storage_element)
    return element is not None and element.settings.transfer_defaults.strict_copy


def _ordered(
    sources: list[Location], file: FileRow, job: JobRow, order: SourceOrder
) -> list[Location]:
    """The copies of a logical source in the order in which they are tried."""
    key = order.by(strategy_of(file), file.target_element.removeprefix(PREFIX), job.vo)
    return copies.in_order(sources, key)


def strategy_of(file: FileRow) -> Strategy:
    """In which order its sources are tried."""
    several = alternatives_of(file)
    return Strategy.ORDERLY if several is None else several.strategy


def _sources(
    file: FileRow,
    elements: StorageElements,
    known: Mapping[str, LogicalFile],
    protocols: Sequence[str],
) -> list[Location] | Failed:
    name = source_of(file)
    if not is_logical(name):
        on_the_way = file.hop > 1
        located = elements.locate(name, internal=True, own=on_the_way, operation=Operation.READ)
        if located is None:
            return _unserved(_name_of_end(file, file.hop - 1) if on_the_way else name)
        if on_the_way:
            return [_shown_as(_name_of_end(file, file.hop - 1), located)]
        return [located.location]
    logical = known.get(name)
    if logical is None:
        return Failed(
            FailureClass.CATALOGUE,
            f"{name} is not registered in the catalogue",
            "check the name; put the file there, or register its replica",
        )
    several = alternatives_of(file)
    only = "" if several is None else several.present.element
    found = copies.places(logical, elements, protocols)
    if not found:
        return _unserved(name)
    asked = [one for one in found if not only or one.location.storage_element == PREFIX + only]
    return [_shown_as(name, located) for located in asked] or Failed(
        FailureClass.NO_REPLICA,
        f"{name} has no copy on {only} any more",
        "register one, or put the file there",
    )


def _name_of_end(file: FileRow, hop: int) -> str:
    """What users are told that the target of a hop is called; of no hop: the file's own."""
    if file.route is None:
        return file.target
    route = routes.read(file.route)
    if route.is_last(hop):
        return file.target
    stop = route.stop(hop)
    return stop.url if stop.stays else f"the copy on {stop.element}"


def _shown_as(name: str, located: Located) -> Location:
    """A place under the name that its submitter gave it; on an internal element it has another."""
    return located.location if located.internal else located.location._replace(shown=name)


def _content(
    file: FileRow, known: Mapping[str, LogicalFile], computable: frozenset[str]
) -> tuple[dict[str, str], int | None] | Failed:
    """The checksums and the size that the bytes must have."""
    expected = dict([_split(file.checksum)]) if file.checksum is not None else {}
    size_bytes = file.size_bytes
    if file.hop > 1 and file.actual_checksum is not None:
        # The copy on the way is held to what arrived there.
        expected.setdefault(*_split(file.actual_checksum))
    source = source_of(file)
    named = [known.get(source)] if is_logical(source) else []
    target = known.get(file.target_lfn)
    if target is not None and file.guid and file.guid != target.guid:
        return Failed(
            FailureClass.CATALOGUE,
            f"{target.lfn} is registered with {target.guid or 'no GUID'}, not with {file.guid}",
            "choose another logical name or GUID",
        )
    if target is not None and any(r.url != file.target_url for r in target.replicas):
        # Every copy of a logical file has the same bytes: those of the copies elsewhere.
        named.append(target)
    for logical in named:
        if logical is None:
            continue
        algorithm, value = _split(logical.checksum)
        if expected.setdefault(algorithm, value) != value and logical is target:
            return Failed(
                FailureClass.CATALOGUE,
                f"{target.lfn} is registered with {target.checksum}, and has copies elsewhere",
                "choose another logical name",
            )
        size_bytes = logical.size_bytes if size_bytes is None else size_bytes
    return {name: value for name, value in expected.items() if name in computable}, size_bytes


def _computed(
    file: FileRow,
    expected: Mapping[str, str],
    known: Mapping[str, LogicalFile],
    computable: frozenset[str],
) -> Sequence[str]:
    """The algorithms to compute: those expected, and the one under which the target is
    registered.
    """
    names = list(expected)
    target = known.get(file.target_lfn)
    if target is not None:
        algorithm, _ = _split(target.checksum)
        if algorithm in computable and algorithm not in names:
            names.append(algorithm)
    return names or [DEFAULT_CHECKSUM]


def _split(checksum: str) -> tuple[str, str]:
    algorithm, _, value = checksum.partition(":")
    return algorithm, value


def _unserved(name: str) -> Failed:
    return Failed(
        FailureClass.BACKEND_REFUSED,
        f"no storage element serves {name} any more",
        "have the storage element configured again",
    )
