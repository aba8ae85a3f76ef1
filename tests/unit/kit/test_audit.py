"""What the audit keeps: its columns, large resources, and what fits into one answer."""

import json

import pytest
from sqlalchemy import Index, Table

from gridlane.transfer.v1.activity_pb2 import ActivityShare, ActivityShares
from gridlane_kit.audit import FILTERED, AuditEntry, as_json, audit_table
from gridlane_kit.audit_reading import entry_message
from gridlane_kit.database import service_metadata
from gridlane_kit.identity import Principal


def table(*, of_policy: bool) -> Table:
    return audit_table(service_metadata(), vo_length=64, of_policy=of_policy)


@pytest.mark.parametrize("of_policy", [False, True])
def test_a_row_is_an_entry_as_far_as_the_table_goes(of_policy: bool) -> None:
    names = list(table(of_policy=of_policy).c.keys())
    assert names == list(AuditEntry._fields[: len(names)])
    assert len(names) == len(AuditEntry._fields) - (0 if of_policy else 2)


def test_each_filter_has_an_index_in_the_order_of_the_listing() -> None:
    indexes: set[Index] = table(of_policy=False).indexes
    assert {index.name: list(index.columns.keys()) for index in indexes} == {
        f"ix_audit_entry_{name}_uid": [name, "uid"] for name in FILTERED
    }


def test_a_resource_is_kept_as_json_with_the_names_of_its_fields() -> None:
    shares = ActivityShares(name="vos/cms/activityShares", revision=3)
    text = as_json(shares)
    assert text is not None
    assert json.loads(text) == {"name": "vos/cms/activityShares", "revision": "3"}
    assert as_json(None) is None


def test_of_a_very_large_resource_the_large_fields_are_left_out() -> None:
    share = ActivityShare(activity="é" * 255, weight=1)
    small = ActivityShares(name="vos/cms/activityShares", activities=[share] * 10)
    large = ActivityShares(name="vos/cms/activityShares", revision=3, activities=[share] * 1000)
    kept = [json.loads(as_json(shares) or "") for shares in (small, large)]
    assert len(kept[0]["activities"]) == 10
    assert kept[1] == {"name": "vos/cms/activityShares", "revision": "3"}


def test_an_entry_says_what_its_row_does() -> None:
    principal = Principal("https://issuer.test/", "ann", vos=frozenset({"cms"}))
    message = entry_message(
        AuditEntry(
            uid="01a201f0-0c1d-7a2b-8c3d-4e5f60718293",
            time_us=1_700_000_000_000_001,
            principal=principal.to_json(),
            actor="ann",
            service="workload",
            method="gridlane.transfer.v1.ChannelAdminService/CreateChannel",
            resource="channels/lane",
            vo="cms",
            reason="more ways",
            permission="transfer.channels.create",
            rule="admin: all",
            before_json=None,
            after_json='{"max_files":7}',
            trace_id="0" * 32,
            peer="ipv4:127.0.0.1:1",
        )
    )
    assert message.name == "auditEntries/01a201f0-0c1d-7a2b-8c3d-4e5f60718293"
    assert message.time.ToMicroseconds() == 1_700_000_000_000_001
    assert (message.actor.subject, list(message.actor.vos)) == ("ann", ["cms"])
    assert (message.HasField("before"), message.after["max_files"]) == (False, 7)
    assert (message.HasField("status"), message.policy_revision) == (False, 0)
