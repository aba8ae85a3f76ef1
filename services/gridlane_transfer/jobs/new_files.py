"""The rows of a new job's files, made of their description and of what their names stand for.

Responsible for nothing that can be refused but the lack of a channel. Most files ask for a source
and a target alone; what few ask for costs those alone.
"""

from operator import attrgetter
from typing import Final

from gridlane.transfer.v1 import transfer_job_pb2
from gridlane_kit import errors
from gridlane_transfer import messages
from gridlane_transfer.backends.base import Location
from gridlane_transfer.channels.channels import Channels
from gridlane_transfer.jobs.named_ends import Ends, element_of
from gridlane_transfer.moving.alternatives import Alternatives, Source, Strategy
from gridlane_transfer.moving.copies import Copies
from gridlane_transfer.moving.file_transfers import is_logical
from gridlane_transfer.moving.routes import Route, Stop
from gridlane_transfer.moving.source_order import SourceOrder
from gridlane_transfer.states import FileState
from gridlane_transfer.storage.storage_elements import PREFIX, Located
from gridlane_transfer.store.jobs import MoreOfFile, NewFile
from gridlane_transfer.store.tables import JobRow

_HIGHEST_PRIORITY: Final = 5
_READY: Final = int(FileState.READY)

rarely_asked: Final = attrgetter(
    "alternative_sources",
    "via",
    "activity",
    "scitag",
    "metadata",
    "selection_strategy",
    "guid",
)
"""What few files ask for; all false for the others."""


class NewFiles:
    """Makes the rows of one job's files.

    Parameters:
        copies: of the logical sources; None when the job has none.
    """

    def __init__(
        self,
        job: transfer_job_pb2.TransferJob,
        row: JobRow,
        channels: Channels,
        order: SourceOrder,
        copies: Copies | None,
    ) -> None:
        self._job = job
        self._row = row
        self._channels = channels
        self._order = order
        self._copies = copies
        self._rank = _HIGHEST_PRIORITY - row.priority
        self._queue = f"{row.vo}/{job.activity}"
        self._uids: dict[tuple[str, str], str] = {}
        waits = job.HasField("max_time_in_queue")
        self._until_us = row.create_us + job.max_time_in_queue.ToMicroseconds() if waits else None
        self._strategy = job.selection_strategy or Strategy.ORDERLY
        self._all_ask = bool(waits or row.activity or self._strategy != Strategy.ORDERLY)

    def of(self, file: transfer_job_pb2.FileTransfer, n: int, ends: Ends, *, asks: bool) -> NewFile:
        """The row of a file.

        Parameters:
            n: from 1, in the order of submission.
            asks: whether the file asks for what few do.

        Raises:
            GridlaneError: PRECONDITION: no channel leads there.
        """
        name, (location, lfn, _, _) = file.source, ends.target
        source = ends.source.location.storage_element
        if self._copies is not None and is_logical(name):
            source = self._copies.first(name, location)
        target = location.storage_element
        asks = asks or self._all_ask
        # In the order of the fields: by their names it takes three times as long.
        new = NewFile(
            n,
            name,
            file.target,
            location.url,
            lfn,
            source,
            target,
            messages.checksum_text(file.checksum) if file.HasField("checksum") else None,
            file.size_bytes if file.HasField("size_bytes") else None,
            file.overwrite,
            _READY,
            "" if asks else self._channel(source, target),
            self._rank,
            self._row.create_us,
            self._queue,
        )
        return self._with_more(new, file, ends) if asks else new

    def _with_more(self, new: NewFile, file: transfer_job_pb2.FileTransfer, ends: Ends) -> NewFile:
        several = self._alternatives(file, ends)
        target = ends.target.location
        if ends.stops:
            target = ends.stops[0].located.location
            new = new._replace(
                target_url=target.url, target_lfn="", target_element=target.storage_element
            )
        if several is not None or ends.stops:
            new = new._replace(source_element=self._source_element(new, several, target))
        activity = file.activity or self._job.activity
        more = MoreOfFile(
            activity=activity or None,
            metadata=file.metadata or None,
            scitag=file.scitag or None,
            guid=file.guid.lower() or None,
            queue_until_us=self._until_us,
            alternatives=None if several is None else several.to_json(),
            route=_route(ends).to_json() if ends.stops else None,
            hop=1 if ends.stops else 0,
        )
        return new._replace(
            channel_uid=self._channel(new.source_element, new.target_element),
            queue=f"{self._row.vo}/{activity}",
            more=more,
        )

    def _source_element(self, new: NewFile, several: Alternatives | None, target: Location) -> str:
        """The resource name of the storage element that a file is read from first; empty while it
        is not known.
        """
        name = new.source if several is None else several.present.name
        if self._copies is not None and is_logical(name):
            strategy = Strategy.ORDERLY if several is None else several.strategy
            return self._copies.first(name, target, strategy)
        return new.source_element if several is None else PREFIX + several.present.element

    def _alternatives(self, file: transfer_job_pb2.FileTransfer, ends: Ends) -> Alternatives | None:
        """The sources of a file, when one of several is to be chosen, or not in the order given."""
        strategy = file.selection_strategy or self._strategy
        if not file.alternative_sources and strategy == Strategy.ORDERLY:
            return None
        names = [file.source, *file.alternative_sources]
        places = [ends.source, *ends.alternatives]
        sources = [_source(name, place) for name, place in zip(names, places, strict=True)]
        order = self._order.by(strategy, element_of(ends.target), self._row.vo)
        return Alternatives(sources, Strategy(strategy)).begin(order)

    def _channel(self, source: str, target: str) -> str:
        """The uid of the channel between two storage elements, given by their resource names."""
        uid = self._uids.get((source, target))
        if uid is None:
            channel = self._channels.choose(
                source.removeprefix(PREFIX), target.removeprefix(PREFIX)
            )
            if channel is None:
                raise errors.precondition(
                    target,
                    f"no channel leads from {source or 'any storage element'} to {target}:"
                    " have an administrator add one",
                )
            uid = self._uids[source, target] = channel.uid
        return uid


def _source(name: str, place: Located) -> Source:
    return Source(name, "" if is_logical(name) else element_of(place))


def _route(ends: Ends) -> Route:
    """The way of a file that stops on it."""
    on_the_way = [
        Stop(stop.located.location.url, stop.located.location.storage_element, "", stop.stays)
        for stop in ends.stops
    ]
    target = ends.target.location
    return Route([*on_the_way, Stop(target.url, target.storage_element, ends.target.lfn, True)])
