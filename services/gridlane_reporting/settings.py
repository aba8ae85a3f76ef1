"""What can be set about Reporting: `GRIDLANE_REPORTING_…`, `[reporting]` of the file."""

from pydantic import Field

from gridlane_kit.settings import StoreSettings


class ReportingSettings(StoreSettings):
    """The settings of Reporting, with their defaults."""

    span_ring_size: int = Field(
        default=20_000, ge=1, description="spans kept in memory; the oldest make room for new ones"
    )
    accept_job_spans: bool = Field(
        default=True, description="whether running jobs may send spans of their own (OTLP/gRPC)"
    )
    job_span_limit: int = Field(
        default=500, ge=1, description="spans kept of those that one job sent itself"
    )
    retry_s: float = Field(
        default=1.0, gt=0, description="pause before a feed that broke is followed again"
    )
    lease_s: float = Field(
        default=15.0,
        gt=0,
        description="how long one of several processes has the right to follow a feed; renewed at a"
        " third of it",
    )
