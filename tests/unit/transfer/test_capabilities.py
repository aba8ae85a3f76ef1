"""Every field of a request is carried, refused or output only; nothing is ignored in silence."""

from collections.abc import Iterable
from typing import Any

import pytest
from google.api import field_behavior_pb2
from google.protobuf import descriptor_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor

from gridlane.transfer.v1 import (
    activity_service_pb2,
    backend_pb2,
    channel_admin_service_pb2,
    channel_service_pb2,
    event_service_pb2,
    replica_service_pb2,
    selection_strategy_pb2,
    storage_service_pb2,
    transfer_admin_service_pb2,
    transfer_job_pb2,
    transfer_service_pb2,
)
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_transfer import capabilities, service, service_channels, service_jobs
from gridlane_transfer.backends.embedded.mover import EmbeddedMover
from gridlane_transfer.capabilities import (
    CHANNEL_FIELDS,
    DELETION_FIELDS,
    FILE_FIELDS,
    JOB_FIELDS,
    NO_REMOTE_PUT,
    NO_STAGING,
    OVERWRITE_MODES,
    SELECTION_STRATEGIES,
    Missing,
)

SHELLS = {
    transfer_service_pb2: service_jobs.TransferShell,
    transfer_admin_service_pb2: service_jobs.TransferAdminShell,
    storage_service_pb2: service.StorageShell,
    channel_service_pb2: service_channels.ChannelShell,
    channel_admin_service_pb2: service_channels.ChannelAdminShell,
    activity_service_pb2: service_channels.ActivityShell,
    replica_service_pb2: service.ReplicaShell,
    event_service_pb2: service.TransferEventShell,
}
PAGE = {"page_size", "page_token"}
CARRIED = {
    "gridlane.transfer.v1.SubmitTransferJobRequest": {
        "transfer_job",
        "request_id",
        "validate_only",
    },
    "gridlane.transfer.v1.TransferJob": {
        "vo",
        "files",
        "placement",
        "overwrite",
        "verify",
        "max_retries",
        "priority",
        "tags",
        "activity",
        "metadata",
        "retry_delay",
        "max_time_in_queue",
        "timeout",
        "expire_time",
        "streams",
        "report_target_file",
        "strict_copy",
        "disable_cleanup",
        "overwrite_intermediate",
        "selection_strategy",
        "backend",
        "protocols",
    },
    "gridlane.transfer.v1.TransferJob.TagsEntry": {"key", "value"},
    "gridlane.transfer.v1.FileTransfer": {
        "source",
        "target",
        "checksum",
        "size_bytes",
        "overwrite",
        "alternative_sources",
        "via",
        "activity",
        "scitag",
        "metadata",
        "selection_strategy",
        "guid",
    },
    "gridlane.type.v1.Checksum": {"type", "value"},
    "gridlane.transfer.v1.GetTransferJobRequest": {"name"},
    "gridlane.transfer.v1.BatchGetTransferJobsRequest": {"names"},
    "gridlane.transfer.v1.ListTransferJobsRequest": {*PAGE, "filter"},
    "gridlane.transfer.v1.ListFileTransfersRequest": {*PAGE, "parent", "filter"},
    "gridlane.transfer.v1.BatchSubmitTransferJobsRequest": {"requests"},
    "gridlane.transfer.v1.SubmitTransferJobStreamRequest": {"header", "files"},
    "gridlane.transfer.v1.SubmitTransferJobHeader": {
        "transfer_job",
        "request_id",
        "validate_only",
        "file_count",
        "digest_sha256",
    },
    "gridlane.transfer.v1.FileTransferChunk": {"files"},
    "gridlane.transfer.v1.SubmitDeletionJobRequest": {
        "vo",
        "files",
        "priority",
        "tags",
        "activity",
        "metadata",
        "max_retries",
        "backend",
        "request_id",
        "validate_only",
    },
    "gridlane.transfer.v1.SubmitDeletionJobRequest.TagsEntry": {"key", "value"},
    "gridlane.transfer.v1.DeletionFile": {"file", "metadata"},
    "gridlane.transfer.v1.SummarizeTransferJobsRequest": {"filter", "window"},
    "gridlane.type.v1.TimeWindow": {"start_time", "end_time"},
    "gridlane.transfer.v1.GetFileTransferRequest": {"name"},
    "gridlane.transfer.v1.ListFileAttemptsRequest": {*PAGE, "parent"},
    "gridlane.transfer.v1.ExplainTransferJobRequest": {*PAGE, "name"},
    "gridlane.transfer.v1.BatchCancelTransferJobsRequest": {"names"},
    "gridlane.transfer.v1.CancelFileTransfersRequest": {"parent", "names"},
    "gridlane.transfer.v1.RetryTransferJobRequest": {"name", "files", "request_id", "reason"},
    "gridlane.transfer.v1.UpdateTransferJobRequest": {
        "transfer_job",
        "update_mask",
        "revision",
        "reason",
    },
    "gridlane.transfer.v1.ReleaseHeldFilesRequest": {"name", "files", "reason"},
    "gridlane.transfer.v1.FailHeldFilesRequest": {"name", "files", "reason"},
    "gridlane.transfer.v1.ListTransferEventsRequest": {*PAGE, "parent"},
    "gridlane.transfer.v1.CancelTransferJobRequest": {"name", "reason"},
    "gridlane.transfer.v1.WatchTransferJobsRequest": {"names", "resume_token"},
    "gridlane.transfer.v1.GetStorageElementRequest": {"name"},
    "gridlane.transfer.v1.ListStorageElementsRequest": PAGE,
    "gridlane.transfer.v1.PutContentRequest": {"header", "chunk"},
    "gridlane.transfer.v1.PutContentHeader": {"file", "size_bytes", "checksum", "overwrite"},
    "gridlane.transfer.v1.GetContentRequest": {"file", "offset_bytes"},
    "gridlane.transfer.v1.DeleteContentRequest": {"file"},
    "gridlane.transfer.v1.StatContentRequest": {"file"},
    "gridlane.transfer.v1.GetTransferStatusRequest": set(),
    "gridlane.transfer.v1.GetChannelRequest": {"name"},
    "gridlane.transfer.v1.ListChannelsRequest": PAGE,
    "gridlane.transfer.v1.CreateChannelRequest": {
        "channel_id",
        "channel",
        "request_id",
        "reason",
        "validate_only",
    },
    "gridlane.transfer.v1.UpdateChannelRequest": {"channel", "update_mask", "revision", "reason"},
    "gridlane.transfer.v1.DeleteChannelRequest": {"name", "revision", "reason"},
    "gridlane.transfer.v1.ListHeldFilesRequest": {*PAGE, "parent"},
    "gridlane.transfer.v1.ReleaseChannelFilesRequest": {"name", "files", "reason"},
    "gridlane.transfer.v1.FailChannelFilesRequest": {"name", "files", "reason"},
    "gridlane.transfer.v1.Channel": {
        "name",
        "source",
        "target",
        "state",
        "max_files",
        "on_exhausted",
        "vo_shares",
        "max_streams",
        "max_bandwidth_bytes_per_second",
        "nominal_throughput_bytes_per_second",
        "contact",
        "description",
        "default_max_retries",
        "default_retry_delay",
        "optimizer",
    },
    "gridlane.transfer.v1.Channel.VoSharesEntry": {"key", "value"},
    "gridlane.transfer.v1.ChannelOptimizer": {"mode", "min_files", "max_files"},
    "gridlane.transfer.v1.GetActivitySharesRequest": {"name"},
    "gridlane.transfer.v1.UpdateActivitySharesRequest": {
        "activity_shares",
        "update_mask",
        "revision",
        "reason",
    },
    "gridlane.transfer.v1.ActivityShares": {"name", "activities", "active"},
    "gridlane.transfer.v1.ActivityShare": {"activity", "weight"},
    "gridlane.transfer.v1.RegisterReplicaRequest": {
        "lfn",
        "url",
        "size_bytes",
        "checksum",
        "guid",
    },
    "gridlane.transfer.v1.BatchRegisterReplicasRequest": {"requests"},
    "gridlane.transfer.v1.UnregisterReplicaRequest": {"lfn", "replica"},
    "gridlane.transfer.v1.BatchUnregisterReplicasRequest": {"requests"},
    "gridlane.transfer.v1.ResolveReplicasRequest": {"lfns"},
    "gridlane.transfer.v1.ListReplicasRequest": {*PAGE, "prefix"},
    "gridlane.transfer.v1.FollowTransferEventsRequest": {"after"},
    "gridlane.transfer.v1.AckTransferEventsRequest": {"consumer", "position"},
    "gridlane.type.v1.FeedPosition": {"epoch", "position"},
}
"""The fields that this version carries out, of every request of a method that it has."""
REFUSED = {
    "gridlane.transfer.v1.TransferJob": JOB_FIELDS,
    "gridlane.transfer.v1.FileTransfer": FILE_FIELDS,
    "gridlane.transfer.v1.Channel": CHANNEL_FIELDS,
    "gridlane.transfer.v1.SubmitDeletionJobRequest": DELETION_FIELDS,
}
REFUSED_ALTOGETHER = {"SubmitStagingJob"}
CARRIED_MODES = {"UNSPECIFIED", "NEVER", "ALWAYS", "ON_RETRY", "WHEN_DIFFERENT"}
MODES = dict(transfer_job_pb2.OverwriteMode.items())
CARRIED_STRATEGIES = {"UNSPECIFIED", "ORDERLY", "AUTO", "SUCCESS"}
STRATEGIES = dict(selection_strategy_pb2.SelectionStrategy.items())
EVERY_MISSING = [
    missing
    for table in (*REFUSED.values(), OVERWRITE_MODES, SELECTION_STRATEGIES)
    for missing in table.values()  # type: ignore[attr-defined]
] + [NO_STAGING, NO_REMOTE_PUT]


def output_only(field: FieldDescriptor) -> bool:
    # Read anew: options parsed before the extension was known keep it as unknown bytes.
    options = descriptor_pb2.FieldOptions.FromString(field.GetOptions().SerializeToString())
    behavior: Any = field_behavior_pb2.field_behavior
    return field_behavior_pb2.OUTPUT_ONLY in options.Extensions[behavior]


def requested(message: Descriptor, seen: dict[str, set[str]]) -> None:
    """Collects what a caller may set in a message and in those that its fields lead to."""
    if message.full_name in seen or message.full_name.startswith("google."):
        return
    fields = [field for field in message.fields if not output_only(field)]
    seen[message.full_name] = {field.name for field in fields}
    for field in fields:
        refused = field.name in REFUSED.get(message.full_name, {})
        if field.message_type is not None and not refused:
            requested(field.message_type, seen)


def test_every_field_of_a_request_is_carried_or_refused() -> None:
    seen: dict[str, set[str]] = {}
    for module, shell in SHELLS.items():
        for service_descriptor in module.DESCRIPTOR.services_by_name.values():
            for method in service_descriptor.methods:
                if hasattr(shell, method.name) and method.name not in REFUSED_ALTOGETHER:
                    requested(method.input_type, seen)
    assert seen == {name: fields | set(REFUSED.get(name, {})) for name, fields in CARRIED.items()}


def test_no_field_is_carried_and_refused() -> None:
    assert [name for name, table in REFUSED.items() if CARRIED[name] & table.keys()] == []


def test_every_mode_of_overwriting_is_carried_or_refused() -> None:
    modes = {name.removeprefix("OVERWRITE_MODE_"): n for name, n in MODES.items()}
    assert {modes[name] for name in CARRIED_MODES} | OVERWRITE_MODES.keys() == set(modes.values())
    assert not {modes[name] for name in CARRIED_MODES} & OVERWRITE_MODES.keys()


def test_every_strategy_is_carried_or_refused() -> None:
    numbers = {name.removeprefix("SELECTION_STRATEGY_"): n for name, n in STRATEGIES.items()}
    carried = {numbers[name] for name in CARRIED_STRATEGIES}
    assert carried | SELECTION_STRATEGIES.keys() == set(numbers.values())
    assert not carried & SELECTION_STRATEGIES.keys()


def test_a_capability_is_declared_or_lacked() -> None:
    """What the backend declares is what requests may ask for, and nothing of it is refused."""
    every = {
        name.removeprefix("TRANSFER_CAPABILITY_")
        for name, number in backend_pb2.TransferCapability.items()
        if number
    }
    declared = EmbeddedMover.capabilities | capabilities.OF_EVERY_BACKEND
    lacked = {missing.capability for missing in EVERY_MISSING}
    assert declared <= every
    assert not declared & lacked
    assert every - declared - lacked <= {
        "OVERWRITE_WHEN_ONLY_ON_DISK",
        "BANDWIDTH_LIMIT",
        "THIRD_PARTY_COPY",
        "DELETION",
    }


@pytest.mark.parametrize("missing", EVERY_MISSING, ids=lambda missing: missing.capability)
def test_a_capability_is_one_of_the_contract(missing: Missing) -> None:
    name = f"TRANSFER_CAPABILITY_{missing.capability}"
    assert name in backend_pb2.TransferCapability.keys()  # noqa: SIM118 - no mapping
    assert missing.cure


def set_field(message: Any, field: FieldDescriptor) -> None:
    """Sets a field to a value that asks for something."""
    if field.is_repeated:
        getattr(message, field.name).append("x")
    elif field.message_type is not None:
        getattr(message, field.name).SetInParent()
    elif field.cpp_type == FieldDescriptor.CPPTYPE_STRING:
        setattr(message, field.name, "x")
    else:
        setattr(message, field.name, 1)


def fields_of(message: Any, names: Iterable[str]) -> list[FieldDescriptor]:
    return [message.DESCRIPTOR.fields_by_name[name] for name in names]


def refusal_of(job: transfer_job_pb2.TransferJob) -> GridlaneError:
    with pytest.raises(GridlaneError) as raised:
        capabilities.refuse_job(job)
    assert raised.value.reason is ErrorReason.CAPABILITY_MISSING
    return raised.value


def violations(error: GridlaneError) -> dict[str, str]:
    bad: Any = error.details[0]
    return {one.field: one.description for one in bad.field_violations}


@pytest.mark.parametrize(
    "field", fields_of(transfer_job_pb2.TransferJob, JOB_FIELDS), ids=lambda field: field.name
)
def test_a_job_that_asks_for_more_is_refused(field: FieldDescriptor) -> None:
    job = transfer_job_pb2.TransferJob(files=[transfer_job_pb2.FileTransfer(source="a:b")])
    set_field(job, field)
    error = refusal_of(job)
    missing = JOB_FIELDS[field.name]
    path = f"transfer_job.{field.name}"
    assert error.metadata == {
        "field": path,
        "capability": missing.capability,
        "backend": capabilities.EMBEDDED,
    }
    assert violations(error).keys() == {path}
    assert violations(error)[path].endswith(missing.cure)


@pytest.mark.parametrize(
    "field", fields_of(transfer_job_pb2.FileTransfer, FILE_FIELDS), ids=lambda field: field.name
)
def test_a_file_that_asks_for_more_is_refused(field: FieldDescriptor) -> None:
    files = [transfer_job_pb2.FileTransfer(source="a:b") for _ in range(3)]
    set_field(files[1], field)
    error = refusal_of(transfer_job_pb2.TransferJob(files=files))
    path = f"transfer_job.files[1].{field.name}"
    assert error.metadata["field"] == path
    assert error.metadata["capability"] == FILE_FIELDS[field.name].capability
    assert violations(error).keys() == {path}


@pytest.mark.parametrize("strategy", SELECTION_STRATEGIES)
def test_a_strategy_that_is_not_there_is_refused(strategy: Any) -> None:
    file = transfer_job_pb2.FileTransfer(selection_strategy=strategy)
    error = refusal_of(transfer_job_pb2.TransferJob(selection_strategy=strategy, files=[file]))
    assert error.metadata["capability"] == "SOURCE_STATISTICS"
    assert set(violations(error)) == {
        "transfer_job.selection_strategy",
        "transfer_job.files[0].selection_strategy",
    }


@pytest.mark.parametrize("mode", OVERWRITE_MODES)
def test_a_mode_of_overwriting_that_is_not_there_is_refused(mode: Any) -> None:
    file = transfer_job_pb2.FileTransfer(overwrite=mode)
    error = refusal_of(transfer_job_pb2.TransferJob(overwrite=mode, files=[file]))
    assert set(violations(error)) == {"transfer_job.overwrite", "transfer_job.files[0].overwrite"}


def test_what_asks_for_nothing_is_accepted() -> None:
    job = transfer_job_pb2.TransferJob(
        s3_alternate=False,
        overwrite=transfer_job_pb2.OVERWRITE_MODE_ALWAYS,
        retry_of="transfers/x",
        revision=7,
        files=[transfer_job_pb2.FileTransfer(backend_id="x", hop=3)],
    )
    capabilities.refuse_job(job)


def test_of_very_many_violations_the_first_ones_are_named() -> None:
    files = [transfer_job_pb2.FileTransfer(staging_metadata="{}") for _ in range(1000)]
    found = violations(refusal_of(transfer_job_pb2.TransferJob(files=files)))
    named = len(found) - 1
    assert named > 5
    assert f"transfer_job.files[{named - 1}].staging_metadata" in found
    assert found["…"] == f"and {1000 - named} more"


@pytest.mark.parametrize("field", DELETION_FIELDS)
def test_a_removal_that_asks_for_more_is_refused(field: str) -> None:
    request = transfer_service_pb2.SubmitDeletionJobRequest()
    setattr(request, field, "x")
    with pytest.raises(GridlaneError) as raised:
        capabilities.refuse_deletion(request)
    assert raised.value.metadata["field"] == field


def test_every_file_that_is_to_be_staged_is_refused() -> None:
    request = transfer_service_pb2.SubmitStagingJobRequest()
    request.files.add(source="LFN:/local/a")
    request.files.add(source="LFN:/local/b")
    error = capabilities.staging_missing(request)
    assert error.metadata["capability"] == "STAGING"
    assert list(violations(error)) == ["files[0].source", "files[1].source"]
