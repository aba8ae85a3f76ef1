"""Registrations of what was moved: what is registered, and why that cannot be.

Responsible for the rules of one file whose bytes are at the target and that the catalogue is owed,
as functions without I/O. A registration that may succeed later is tried again within the file's
one retry budget; when that is spent, or when trying again cannot help, the file is CATALOG_FAILED
(gLite: CatalogFailed) with its bytes where they are.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass

from gridlane_transfer.catalogue.base import ConflictError, Registration
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.storage.storage_elements import StorageElements
from gridlane_transfer.store.tables import FileRow, JobRow


@dataclass(frozen=True, slots=True)
class Arrived:
    """What an attempt brought to the target.

    Parameters:
        checksums: by algorithm.
        replaces: whether its bytes took the place of others there.
    """

    size_bytes: int
    checksums: Mapping[str, str]
    replaces: bool

    def to_json(self) -> str:
        """As the file's row keeps it."""
        return json.dumps(asdict(self))


def read(text: str) -> Arrived:
    """What `Arrived.to_json` wrote."""
    return Arrived(**json.loads(text))


def copy_of(
    file: FileRow, job: JobRow, arrived: Arrived, elements: StorageElements, time_us: int
) -> Registration | Failed:
    """The registration of a file's target, or why there cannot be one.

    Storage elements change while files move: one that is configured no more, or has no place for
    the file now, may be brought back.

    Parameters:
        time_us: the present.
    """
    located = elements.locate(file.target_url)
    if located is None:
        gone = elements.get(file.target_element) is None
        what = "is no more" if gone else f"has no place for {file.target_lfn} any more"
        return Failed(
            FailureClass.CATALOGUE,
            f"{file.target_lfn} lies on {file.target_element}, which {what}",
            "have the storage element and the VO's path there restored",
            recoverable=True,
        )
    if located.lfn != file.target_lfn:
        return Failed(
            FailureClass.CATALOGUE,
            f"the place of {file.target_lfn} is that of {located.lfn} now",
            f"register it as {located.lfn}",
        )
    return Registration(
        lfn=file.target_lfn,
        url=file.target_url,
        storage_element=file.target_element,
        vo=located.vo,
        owner=job.owner,
        size_bytes=arrived.size_bytes,
        checksums=arrived.checksums,
        replaces=arrived.replaces,
        time_us=time_us,
        guid=file.guid or "",
        makes_guid=job.placement,
    )


def contradicted(error: ConflictError) -> Failed:
    """The failure that a conflict is: trying again cannot help."""
    return Failed(FailureClass.CATALOGUE, str(error), "choose another logical name or GUID")


def unanswered(name: str, message: str) -> Failed:
    """The failure that a catalogue's silence is.

    Parameters:
        name: the catalogue's.
        message: what is known of it.
    """
    return Failed(
        FailureClass.CATALOGUE,
        f"the catalogue {name} did not answer: {message}",
        recoverable=True,
    )
