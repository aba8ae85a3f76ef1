"""The order of a story's events."""

from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from gridlane.transfer.v1 import event_pb2 as transfer_event_pb2
from gridlane.workload.v1 import event_pb2 as job_event_pb2
from gridlane_gateway.story import merged

_times = st.lists(st.integers(0, 5), max_size=20).map(sorted)


@given(_times, _times)
def test_events_are_in_the_order_of_time_and_each_service_s_in_its_own(
    job_times: list[int], transfer_times: list[int]
) -> None:
    jobs = [
        job_event_pb2.JobEvent(event_id=f"j{n}", time=Timestamp(seconds=time))
        for n, time in enumerate(job_times)
    ]
    transfers = [
        transfer_event_pb2.TransferEvent(event_id=f"t{n}", time=Timestamp(seconds=time))
        for n, time in enumerate(transfer_times)
    ]
    events = merged(jobs, transfers)
    times = [(e.job.time if e.HasField("job") else e.transfer.time).seconds for e in events]
    assert times == sorted(times)
    assert [e.job for e in events if e.HasField("job")] == jobs
    assert [e.transfer for e in events if e.HasField("transfer")] == transfers
