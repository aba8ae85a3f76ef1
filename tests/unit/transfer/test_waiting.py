"""Why a file waits: every reason that can hold in this version, in the order of their cure."""

from dataclasses import replace
from typing import Any

import pytest

from gridlane.type.v1 import explanation_pb2
from gridlane_kit.identity import Principal
from gridlane_kit.policy import Binding, Policy, Role
from gridlane_transfer import messages
from gridlane_transfer.backends.base import BackendReport
from gridlane_transfer.catalogue.base import LogicalFile, StoredReplica
from gridlane_transfer.channels.channels import Channel, ChannelState, ExhaustedAction
from gridlane_transfer.jobs import waiting
from gridlane_transfer.jobs.waiting import Facts
from gridlane_transfer.moving.alternatives import Alternatives, Source, Strategy
from gridlane_transfer.moving.failures import Failed, FailureClass
from gridlane_transfer.settings import StorageElementSettings
from gridlane_transfer.states import FileState, JobKind
from gridlane_transfer.storage.bans import Ban, BanAction, Operation
from gridlane_transfer.storage.storage_elements import Limits, StorageElements
from gridlane_transfer.store.queues import Running
from gridlane_transfer.store.tables import FileRow, JobRow

NOW = 1_800_000_000_000_000
ISSUER = "https://issuer.test/"
UID = "channel-uid"
LOST = Failed(FailureClass.BACKEND_LOST, "the mover died", "wait", recoverable=True)


def channel(**changes: Any) -> Channel:
    made = Channel(UID, "wide", "*", "*", ChannelState.ACTIVE, 4, ExhaustedAction.HOLD)
    return replace(made, **changes)


def elements(**limits: int) -> StorageElements:
    found = StorageElements(
        [
            StorageElementSettings(
                name=name, base_url=f"file:///srv/{name}", vo_paths={"cms": f"/{name}"}
            )
            for name in ("near", "far")
        ]
    )
    for name, element in found.configured.items():
        found._elements[name] = replace(element, limits=Limits(**limits))
    return found


def job(**changes: Any) -> JobRow:
    owner = Principal(ISSUER, "sue", vos=frozenset({"cms"}))
    values: dict[str, Any] = dict.fromkeys(JobRow._fields) | JobRow._field_defaults
    values |= {"uuid": "u", "vo": "cms", "principal": owner.to_json(), "create_us": NOW - 10}
    return JobRow(**(values | changes))


def file(state: FileState = FileState.READY, failed: Failed | None = None, **more: Any) -> FileRow:
    values: dict[str, Any] = dict.fromkeys(FileRow._fields) | FileRow._field_defaults
    failure = None if failed is None else messages.failure_message(failed).SerializeToString()
    values |= {
        "n": 1,
        "source": "file:///srv/near/a",
        "source_element": "storageElements/near",
        "target_element": "storageElements/far",
        "channel_uid": UID,
        "state": int(state),
        "failure": failure,
        "attempt": 1,
        "due_us": 0,
        "hop": 0,
    }
    return FileRow(**(values | more))


def facts(**changes: Any) -> Facts:
    policy = Policy(1, [Binding(ISSUER, "sue", Role.SUBMITTER, "cms")], vos=["cms"])
    values: dict[str, Any] = {
        "channels": {UID: channel()},
        "elements": elements(),
        "known": {},
        "running": Running(),
        "running_of_vos": {},
        "policy": policy,
        "backend": BackendReport("embedded", True, "1", ""),
        "capacity": 100,
        "in_work": frozenset(),
        "time_us": NOW,
    }
    return Facts(**(values | changes))


def told(row: FileRow, known: Facts, of: JobRow | None = None) -> list[str]:
    """The reasons, each with what it is about."""
    found = waiting.explain(row, of or job(), known)
    return [
        f"{explanation_pb2.WaitReason.Name(one.reason).removeprefix('WAIT_REASON_')}"
        f" {one.resource}".strip()
        for one in found.explanations
    ]


def busy(on: int = 0, out_of: int = 0, into: int = 0) -> Running:
    running = Running()
    running.on[UID] = on
    running.out_of["storageElements/near"] = out_of
    running.into["storageElements/far"] = into
    return running


def banned(element: str, operation: Operation) -> StorageElements:
    found = elements()
    ban = Ban(
        uid="b",
        element=element,
        operations=frozenset({operation}),
        vo="",
        action=BanAction.WAIT,
        wait_timeout_us=None,
        accept_submissions=True,
        expires_us=NOW + 7,
        reason="the tape robot",
        creator="",
        create_us=0,
    )
    found.bans.replace([ban])
    return found


@pytest.mark.parametrize(
    ("row", "known", "reasons"),
    [
        (file(), facts(), ["UNSPECIFIED"]),
        (file(FileState.SUBMITTED), facts(), ["UNSPECIFIED"]),
        (file(), facts(channels={}), ["NO_CHANNEL"]),
        (file(), facts(channels={UID: channel(deleted=True)}), ["NO_CHANNEL"]),
        (
            file(),
            facts(channels={UID: channel(state=ChannelState.DRAIN)}),
            ["CHANNEL_INACTIVE channels/wide"],
        ),
        (file(), facts(running=busy(on=4)), ["CHANNEL_FULL channels/wide"]),
        (
            file(),
            facts(
                channels={UID: channel(vo_shares={"cms": 1, "atlas": 3})},
                running=busy(on=4),
                running_of_vos={(UID, "cms"): 1},
            ),
            ["SHARE_SPENT vos/cms", "CHANNEL_FULL channels/wide"],
        ),
        (
            file(),
            facts(channels={UID: channel(vo_shares={"cms": 0, "atlas": 3})}),
            ["SHARE_SPENT vos/cms"],
        ),
        (
            file(),
            facts(elements=elements(max_active_out=2), running=busy(out_of=2)),
            ["STORAGE_LIMIT storageElements/near"],
        ),
        (
            file(),
            facts(elements=elements(max_active_in=1), running=busy(into=1)),
            ["STORAGE_LIMIT storageElements/far"],
        ),
        (
            file(FileState.BLOCKED),
            facts(elements=banned("storageElements/far", Operation.WRITE)),
            ["STORAGE_BANNED storageElements/far"],
        ),
        (
            file(),
            facts(elements=banned("storageElements/near", Operation.READ), running=busy(on=4)),
            ["STORAGE_BANNED storageElements/near", "CHANNEL_FULL channels/wide"],
        ),
        (file(), facts(elements=banned("storageElements/near", Operation.WRITE)), ["UNSPECIFIED"]),
        (file(source="LFN:/near/none"), facts(), ["NO_REPLICA"]),
        (file(FileState.HELD, LOST), facts(running=busy(on=4)), ["HELD"]),
        (
            file(FileState.HELD, Failed(FailureClass.PERMISSION, "vetoed", "ask")),
            facts(),
            ["PERMISSION_LOST"],
        ),
        (file(), facts(policy=Policy(2, [], vos=["cms"])), ["PERMISSION_LOST"]),
        (file(FileState.RETRYING, LOST, due_us=NOW + 5), facts(), ["RETRY_DELAY"]),
        (file(FileState.RETRYING, LOST, due_us=NOW - 5), facts(), ["UNSPECIFIED"]),
        (
            file(),
            facts(backend=BackendReport("embedded", False, "1", "no workers")),
            ["BACKEND_DOWN transferBackends/embedded"],
        ),
        (
            file(),
            facts(capacity=3, running=busy(on=3)),
            ["BACKEND_QUEUE transferBackends/embedded"],
        ),
    ],
)
def test_what_holds_a_file_up_is_told_in_the_order_of_its_cure(
    row: FileRow, known: Facts, reasons: list[str]
) -> None:
    assert told(row, known) == reasons


def test_when_it_goes_on_is_told_where_that_is_known() -> None:
    retrying = waiting.explain(file(FileState.RETRYING, LOST, due_us=NOW + 5), job(), facts())
    assert retrying.explanations[0].expected_time.ToMicroseconds() == NOW + 5
    ban = facts(elements=banned("storageElements/far", Operation.WRITE))
    blocked = waiting.explain(file(FileState.BLOCKED), job(), ban)
    assert blocked.explanations[0].expected_time.ToMicroseconds() == NOW + 7
    full = waiting.explain(file(), job(), facts(running=busy(on=4)))
    assert not full.explanations[0].HasField("expected_time")
    assert full.explanations[0].message == "channel wide: 4 of 4 files are active"
    assert full.explanations[0].since_time.ToMicroseconds() == NOW - 10


def test_a_file_that_is_removed_waits_for_no_channel() -> None:
    removal = job(kind=int(JobKind.DELETION))
    row = file(channel_uid="", target_element="", source="LFN:/near/none")
    boss = Policy(1, [Binding(ISSUER, "sue", Role.SUBMITTER, "cms")], vos=["cms"])
    assert told(row, facts(channels={}, policy=boss), removal) == ["UNSPECIFIED"]
    barred = facts(elements=banned("storageElements/near", Operation.REMOVE), channels={})
    assert told(row, barred, removal) == ["STORAGE_BANNED storageElements/near"]


def test_a_file_that_is_removed_takes_no_place_of_those_that_move() -> None:
    removal = job(kind=int(JobKind.DELETION))
    row = file(channel_uid="", target_element="")
    full = facts(
        channels={}, elements=elements(max_active_out=1), running=busy(on=9, out_of=1), capacity=3
    )
    assert told(row, full, removal) == ["UNSPECIFIED"]
    assert told(row, replace(full, backend=BackendReport("embedded", False, "1", "")), removal) == [
        "BACKEND_DOWN transferBackends/embedded"
    ]


def test_of_several_sources_the_present_one_wants_a_copy() -> None:
    sources = [Source("LFN:/near/none", ""), Source("file:///srv/near/a", "near")]
    for now, reasons in ((0, ["NO_REPLICA"]), (1, ["UNSPECIFIED"])):
        several = Alternatives(sources, Strategy.ORDERLY, now=now)
        row = file(source="LFN:/near/none", alternatives=several.to_json())
        assert told(row, facts()) == reasons


def test_a_ban_of_one_copy_holds_nothing_up_while_another_may_be_read() -> None:
    row = file(source="LFN:/near/a")
    barred = banned("storageElements/near", Operation.READ)
    for others, reasons in (
        ([], ["STORAGE_BANNED storageElements/near"]),
        (["far"], ["UNSPECIFIED"]),
    ):
        replicas = tuple(
            StoredReplica(f"file:///srv/{name}/a", f"storageElements/{name}", 0)
            for name in ("near", *others)
        )
        logical = LogicalFile("LFN:/near/a", "cms", "sue", 1, "ADLER32:0", 0, replicas)
        known = facts(elements=barred, known={logical.lfn: logical})
        assert told(row, known) == reasons


def test_what_waits_for_who_writes_to_its_target_says_so() -> None:
    written = facts(in_work={7})
    assert told(file(number=7, target="LFN:/near/a"), written) == ["PREDECESSOR"]
    assert told(file(number=8, target="LFN:/near/a"), written) == ["UNSPECIFIED"]
    assert told(file(FileState.HELD, number=7), written) == ["HELD"]
    (reason,) = waiting.explain(file(number=7, target="LFN:/near/a"), job(), written).explanations
    assert "LFN:/near/a" in reason.message
    of_removal = file(number=7, source="LFN:/near/b", target="", channel_uid="", target_element="")
    (reason,) = waiting.explain(of_removal, job(kind=3), written).explanations
    assert "LFN:/near/b" in reason.message
