"""What few jobs ask for comes back from the store and into the answer as it was asked."""

from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from gridlane.transfer.v1 import selection_strategy_pb2, transfer_job_pb2
from gridlane_transfer.jobs.options import NOTHING, asked_of, options_of

EVERYTHING = transfer_job_pb2.TransferJob(
    retry_delay=Duration(seconds=3, nanos=500_000_000),
    max_time_in_queue=Duration(seconds=60),
    timeout=Duration(seconds=7),
    streams=4,
    report_target_file=True,
    strict_copy=False,
    disable_cleanup=True,
    overwrite_intermediate=True,
    selection_strategy=selection_strategy_pb2.SELECTION_STRATEGY_AUTO,
    backend="transferBackends/embedded",
    protocols=["https", "file"],
)


def test_a_job_that_asks_for_nothing_takes_no_room() -> None:
    assert asked_of(transfer_job_pb2.TransferJob(vo="local", priority=2)).to_json() is None
    assert options_of(None) == NOTHING


def test_every_option_comes_back() -> None:
    asked = asked_of(EVERYTHING)
    assert options_of(asked.to_json()) == asked
    told = transfer_job_pb2.TransferJob()
    asked.tell(told)
    assert told == EVERYTHING


@pytest.mark.parametrize("name", [field.name for field, _ in EVERYTHING.ListFields()])
def test_each_option_stands_alone(name: str) -> None:
    alone: Any = transfer_job_pb2.TransferJob()
    alone.MergeFrom(EVERYTHING)
    for other, _ in EVERYTHING.ListFields():
        if other.name != name:
            alone.ClearField(other.name)
    asked = asked_of(alone)
    assert asked.to_json() is not None
    told = transfer_job_pb2.TransferJob()
    options_of(asked.to_json()).tell(told)
    assert told == alone


def test_a_delay_of_nothing_is_one() -> None:
    asked = asked_of(transfer_job_pb2.TransferJob(retry_delay=Duration()))
    assert options_of(asked.to_json()).retry_delay_us == 0
