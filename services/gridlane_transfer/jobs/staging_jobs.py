"""Jobs that bring files from tape to disk: refused, since no backend of this version stages files.

Responsible for the order of the answers, which is that of every submission: who may not name the
VO or a path is told that first.
"""

from gridlane.transfer.v1 import transfer_job_pb2, transfer_service_pb2
from gridlane_kit import errors
from gridlane_kit.call import Call
from gridlane_transfer import access, capabilities
from gridlane_transfer.storage.storage_elements import StorageElements

_PERMISSION = "transfer.jobs.submit"


class StagingJobs:
    """The call."""

    def __init__(self, elements: StorageElements) -> None:
        self._elements = elements

    def submit(
        self, request: transfer_service_pb2.SubmitStagingJobRequest, call: Call
    ) -> transfer_job_pb2.TransferJob:
        """Refuse a job.

        Raises:
            GridlaneError: VO_AMBIGUOUS, PERMISSION_DENIED, SCOPE_TOO_NARROW, INVALID_FIELDS,
                NO_STORAGE_ELEMENT; otherwise CAPABILITY_MISSING (STAGING).
        """
        call.choose_vo(request.vo)
        for index, file in enumerate(request.files):
            located = self._elements.locate(file.source)
            if located is None:
                raise errors.no_storage_element(file.source, f"files[{index}].source")
            access.require_read(call, located, _PERMISSION)
            if any(file.source == other.source for other in request.files[:index]):
                raise errors.invalid([(f"files[{index}].source", "is another file of the job")])
        raise capabilities.staging_missing(request)
