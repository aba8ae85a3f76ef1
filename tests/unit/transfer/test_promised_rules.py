"""The rules of requests that no handler takes yet: what is meant to pass passes, and each rule
refuses what it is there for.
"""

from typing import Any

import pytest
from google.protobuf import json_format

from gridlane.transfer.v1 import (
    activity_service_pb2,
    backend_admin_service_pb2,
    channel_admin_service_pb2,
    replica_service_pb2,
    storage_admin_service_pb2,
    transfer_admin_service_pb2,
    transfer_service_pb2,
)
from gridlane_kit.errors import GridlaneError
from gridlane_kit.validation import validate

UUID = "0192f0c1-2345-7abc-8def-0123456789ab"
JOB = f"transfers/{UUID}"
FILE = f"{JOB}/files/100000"
LONG = "x" * 1025

GOOD: dict[str, tuple[Any, dict[str, Any]]] = {
    "create channel": (
        channel_admin_service_pb2.CreateChannelRequest,
        {
            "channel_id": "cern-desy",
            "channel": {
                "source": "cern-disk",
                "target": "*",
                "vo_shares": {"atlas": 70, "*": 0},
                "default_retry_delay": "0s",
                "optimizer": {"mode": "OPTIMIZER_MODE_MODERATE", "min_files": 2, "max_files": 20},
            },
            "request_id": UUID,
        },
    ),
    "update channel": (
        channel_admin_service_pb2.UpdateChannelRequest,
        {
            "channel": {"name": "channels/cern-desy", "state": "CHANNEL_STATE_DRAIN"},
            "update_mask": "state,voShares",
            "revision": 3,
        },
    ),
    "release": (
        channel_admin_service_pb2.ReleaseChannelFilesRequest,
        {"name": "channels/a", "files": [FILE]},
    ),
    "create storage element": (
        storage_admin_service_pb2.CreateStorageElementRequest,
        {
            "storage_element_id": "desy-tape",
            "storage_element": {
                "endpoints": [
                    {
                        "base_url": "https://se.example.org:2880/data",
                        "operations": ["STORAGE_OPERATION_READ", "STORAGE_OPERATION_STAGE"],
                    },
                    {"base_url": "file:///srv/storage"},
                ],
                "vo_paths": {"atlas": "/atlas/disk"},
                "failover_for": ["storageElements/desy-disk"],
                "checksum_types": ["CHECKSUM_TYPE_ADLER32"],
                "transfer_defaults": {"archive_timeout": "86400s"},
            },
        },
    ),
    "ban": (
        storage_admin_service_pb2.BanStorageRequest,
        {
            "parent": "storageElements/desy-tape",
            "storage_ban": {
                "action": "BAN_ACTION_WAIT",
                "wait_timeout": "3600s",
                "accept_submissions": True,
                "reason": "downtime",
            },
        },
    ),
    "list bans": (
        storage_admin_service_pb2.ListStorageBansRequest,
        {"parent": "storageElements/-"},
    ),
    "update activities": (
        activity_service_pb2.UpdateActivitySharesRequest,
        {
            "activity_shares": {
                "name": "vos/atlas/activityShares",
                "activities": [{"activity": "Data Challenge", "weight": 5}],
            }
        },
    ),
    "push": (
        backend_admin_service_pb2.PushBackendConfigurationRequest,
        {"name": "transferBackends/fts", "resources": ["channels/a"]},
    ),
    "update job": (
        transfer_admin_service_pb2.UpdateTransferJobRequest,
        {"transfer_job": {"name": JOB, "priority": 5, "activity": "Data Challenge"}},
    ),
    "header": (
        transfer_service_pb2.SubmitTransferJobStreamRequest,
        {"header": {"transfer_job": {"vo": "atlas"}, "digest_sha256": "0" * 64}},
    ),
    "chunk": (
        transfer_service_pb2.SubmitTransferJobStreamRequest,
        {"files": {"files": [{"source": "a:b", "target": "a:c", "scitag": 65535}]}},
    ),
    "staging": (
        transfer_service_pb2.SubmitStagingJobRequest,
        {"files": [{"source": "LFN:/atlas/a"}], "copy_pin_lifetime": "36000s"},
    ),
    "deletion": (
        transfer_service_pb2.SubmitDeletionJobRequest,
        {"files": [{"file": "LFN:/atlas/a"}]},
    ),
    "summary": (
        transfer_service_pb2.SummarizeTransferJobsRequest,
        {"window": {"start_time": "2026-01-01T00:00:00Z", "end_time": "2026-01-02T00:00:00Z"}},
    ),
    "retry": (transfer_service_pb2.RetryTransferJobRequest, {"name": JOB, "files": [FILE]}),
    "unregister": (
        replica_service_pb2.UnregisterReplicaRequest,
        {"lfn": "LFN:/atlas/a", "replica": "storageElements/desy-disk"},
    ),
}
"""A request that passes, for each that has rules of its own."""

BAD = [
    ("create channel", {"channel_id": "a/b"}, "channel_id"),
    ("create channel", {"channel": {"source": "a"}}, "channel"),
    ("create channel", {"channel": {"source": "A", "target": "*"}}, "channel.source"),
    (
        "create channel",
        {"channel": {"source": "a", "target": "b", "vo_shares": {"atlas": -1}}},
        "channel.vo_shares[atlas]",
    ),
    (
        "create channel",
        {"channel": {"source": "a", "target": "b", "optimizer": {"min_files": 9, "max_files": 3}}},
        "channel.optimizer.mode",
    ),
    (
        "create channel",
        {
            "channel": {
                "source": "a",
                "target": "b",
                "optimizer": {"mode": "OPTIMIZER_MODE_FIXED", "min_files": 9, "max_files": 3},
            }
        },
        "channel.optimizer",
    ),
    ("create channel", {"request_id": "1"}, "request_id"),
    ("update channel", {"channel": {"state": "CHANNEL_STATE_DRAIN"}}, "channel"),
    ("update channel", {"reason": LONG}, "reason"),
    ("release", {"files": [f"{JOB}/files/0"]}, "files[0]"),
    ("create storage element", {"storage_element": {"site": "X"}}, "storage_element"),
    (
        "create storage element",
        {"storage_element": {"endpoints": [{"base_url": "https://se.example.org/a?b"}]}},
        "storage_element.endpoints[0].base_url",
    ),
    (
        "create storage element",
        {"storage_element": {"endpoints": [{"base_url": "https://se.example.org/a/"}]}},
        "storage_element.endpoints[0].base_url",
    ),
    (
        "create storage element",
        {"storage_element": {"endpoints": [{"base_url": "a://b"}], "vo_paths": {"x": "/a//b"}}},
        "storage_element.vo_paths[x]",
    ),
    ("ban", {"storage_ban": {"action": "BAN_ACTION_WAIT"}}, "storage_ban.reason"),
    ("ban", {"storage_ban": {"reason": "x"}}, "storage_ban.action"),
    (
        "ban",
        {
            "storage_ban": {
                "action": "BAN_ACTION_CANCEL",
                "reason": "x",
                "accept_submissions": True,
            }
        },
        "storage_ban",
    ),
    ("list bans", {"parent": "storageElements/"}, "parent"),
    ("update activities", {"activity_shares": {"active": True}}, "activity_shares"),
    (
        "update activities",
        {
            "activity_shares": {
                "name": "vos/atlas/activityShares",
                "activities": [{"activity": "a", "weight": 0}],
            }
        },
        "activity_shares.activities[0].weight",
    ),
    ("push", {"resources": [""]}, "resources[0]"),
    ("update job", {"transfer_job": {"priority": 3}}, ""),
    ("update job", {"transfer_job": {"name": JOB, "priority": 6}}, ""),
    ("update job", {"transfer_job": {"name": JOB, "activity": "a\nb"}}, ""),
    ("header", {"header": {"transfer_job": {}, "file_count": 100_001}}, "header.file_count"),
    ("header", {"header": {"transfer_job": {}, "digest_sha256": "0"}}, "header.digest_sha256"),
    ("chunk", {"files": {}}, "files.files"),
    ("chunk", {"files": {"files": [{"source": "a:b"}]}}, "files.files[0].target"),
    ("staging", {"files": []}, "files"),
    ("staging", {"copy_pin_lifetime": "0s"}, "copy_pin_lifetime"),
    ("deletion", {"files": [{"file": "a"}]}, "files[0].file"),
    (
        "summary",
        {"window": {"start_time": "2026-01-02T00:00:00Z", "end_time": "2026-01-02T00:00:00Z"}},
        "window",
    ),
    ("retry", {"files": ["x"]}, "files[0]"),
    ("unregister", {"replica": ""}, "replica"),
]


def request_of(kind: str, changes: dict[str, Any]) -> Any:
    message, given = GOOD[kind]
    return json_format.ParseDict({**given, **changes}, message())


@pytest.mark.parametrize("kind", GOOD)
def test_what_is_meant_to_pass_passes(kind: str) -> None:
    validate(request_of(kind, {}))


@pytest.mark.parametrize(("kind", "changes", "field"), BAD)
def test_a_broken_rule_is_told_by_field(kind: str, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(GridlaneError) as raised:
        validate(request_of(kind, changes))
    bad: Any = raised.value.details[0]
    assert field in [one.field for one in bad.field_violations]
