"""What is known of a file without reading it: StatContent.

Responsible for who may ask, for the order in which copies are asked, and for the answer. The mover
asks the storages: one that does not answer holds a thread of its, never one of the server.
"""

from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from gridlane.transfer.v1 import content_pb2, storage_element_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_kit.errors import GridlaneError
from gridlane_transfer import access, messages
from gridlane_transfer.backends.base import FileInfo, TransferBackend
from gridlane_transfer.catalogue.base import LogicalFile
from gridlane_transfer.catalogue.replicas import Replicas
from gridlane_transfer.content.remote_content import refusal
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.moving.file_transfers import DEFAULT_CHECKSUM, is_logical
from gridlane_transfer.storage import barred_ends
from gridlane_transfer.storage.bans import Operation
from gridlane_transfer.storage.storage_elements import Located, StorageElements

_READ = "transfer.content.read"


class ContentInfos:
    """The call."""

    def __init__(
        self, elements: StorageElements, replicas: Replicas, mover: TransferBackend
    ) -> None:
        self._elements = elements
        self._replicas = replicas
        self._mover = mover

    async def stat(self, file: str, call: Call) -> content_pb2.ContentInfo:
        """What is known of a file; of a logical name its first copy that answers.

        Raises:
            GridlaneError: NOT_FOUND, NO_STORAGE_ELEMENT, PERMISSION_DENIED, SCOPE_TOO_NARROW,
                PRECONDITION when no copy of a registered name is there or it is banned,
                PEER_UNAVAILABLE when the storage does not answer.
        """
        located = self._elements.locate(file, operation=Operation.CHECK)
        if located is None:
            raise errors.no_storage_element(file, "file")
        if located.vo not in call.visibility.vos and not call.visibility.everything:
            raise errors.not_found(file)
        access.require_read(call, located, _READ)
        known = await self._replicas.find(located.lfn)
        copies = self._copies(file, located, known)
        refusals: list[GridlaneError] = []
        for copy in copies:
            try:
                barred_ends.require_free(self._elements, copy, Operation.CHECK)
            except GridlaneError as error:
                refusals.append(error)
                continue
            found = await self._mover.stat(copy.location, [_algorithm(known)])
            if not isinstance(found, Failed):
                return self._message(copy, found, known)
            refusals.append(_refused(file, copy, found, known))
        raise refusals[0]

    def _copies(self, file: str, located: Located, known: LogicalFile | None) -> Sequence[Located]:
        """The places that a name stands for."""
        if known is None or not is_logical(file):
            return [located]
        urls = [replica.url for replica in known.replicas]
        found = [self._elements.locate(url, operation=Operation.CHECK) for url in urls]
        return [copy for copy in found if copy is not None] or [located]

    def _message(
        self, copy: Located, found: FileInfo, known: LogicalFile | None
    ) -> content_pb2.ContentInfo:
        info = content_pb2.ContentInfo(
            lfn=copy.lfn,
            url=copy.location.url,
            storage_element=copy.location.storage_element,
            size_bytes=found.size_bytes,
            locality=self._locality(copy),
        )
        told = [f"{algorithm}:{value}" for algorithm, value in found.checksums.items()]
        registered = known if known and known.on(copy.location.storage_element) else None
        if registered is not None and not told:
            told.append(registered.checksum)
        if told:
            info.checksum.CopyFrom(messages.checksum_message(told[0]))
        if found.modify_s is not None:
            info.modify_time.FromMicroseconds(round(found.modify_s * 1_000_000))
        if registered is not None:
            time = Timestamp()
            time.FromMicroseconds(registered.create_us)
            info.create_time.CopyFrom(time)
        return info

    def _locality(self, copy: Located) -> content_pb2.ContentLocality.ValueType:
        element = self._elements.get(copy.location.storage_element)
        tape = storage_element_pb2.STORAGE_MEDIUM_TAPE
        if element is None or element.settings.medium == tape:
            return content_pb2.CONTENT_LOCALITY_UNSPECIFIED
        return content_pb2.CONTENT_LOCALITY_DISK


def _algorithm(known: LogicalFile | None) -> str:
    """The checksum that is asked for: the catalogue's, so that the two can be compared."""
    return DEFAULT_CHECKSUM if known is None else known.checksum.partition(":")[0]


def _refused(file: str, copy: Located, failed: Failed, known: LogicalFile | None) -> GridlaneError:
    missing = failed.failure_class is FailureClass.SOURCE_MISSING
    if missing and known is not None and is_logical(file):
        return errors.precondition(
            file, f"{file} is registered, and no copy of it is there: put it again"
        )
    return refusal(failed, file, copy.location.storage_element)
