"""What can be set about Workload: `GRIDLANE_WORKLOAD_…`, `[workload]` of the file."""

import os
from pathlib import Path

from pydantic import Field

from gridlane_kit.settings import StoreSettings


class WorkloadSettings(StoreSettings):
    """The settings of Workload, with their defaults."""

    jobs_directory: Path | None = Field(
        default=None,
        description="embedded: where payloads work, the directory of Transfer's storage element"
        " `jobs`; unset in the embedded server: its own data directory",
    )
    payload_address: str = Field(
        default="",
        description="one process a service: where payloads find the services, as GRIDLANE_ADDRESS"
        " says it to clients; empty: where the peers are",
    )
    max_running: int = Field(
        default_factory=lambda: os.cpu_count() or 1,
        ge=1,
        description="embedded: payloads that run at once; the default is the number of processors",
    )
    run_as: str = Field(
        default="",
        description="embedded: the operating system's user that payloads run as; empty: the"
        " server's own, and then the server listens on loopback only",
    )
    path: str = Field(
        default="/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        description="embedded: PATH of payloads that do not bring their own",
    )
    grace_s: float = Field(
        default=5.0, ge=0, description="embedded: seconds between SIGTERM and SIGKILL of a payload"
    )
    default_walltime_s: int = Field(
        default=86_400, ge=1, description="seconds a payload may run when its job does not say"
    )
    max_output_bytes: int = Field(
        default=1 << 30,
        ge=1,
        description="embedded: a payload that writes more to standard output or standard error"
        " is ended, class RESOURCE_LIMIT",
    )
    max_steps: int = Field(default=32, ge=1, description="steps of jobs that are taken at once")
    lease_s: float = Field(default=60.0, gt=0, description="how long a step holds its job")
    step_timeout_s: float = Field(
        default=30.0,
        gt=0,
        description="what the calls of one step have together; less than lease_s",
    )
    poll_s: float = Field(
        default=15.0,
        gt=0,
        description="how often what is waited for is asked, behind the events that normally tell",
    )
    max_retry_delay_s: float = Field(
        default=60.0,
        gt=0,
        description="the longest wait before a step that could not be taken is tried again",
    )
    keep_finished_days: float = Field(
        default=7.0,
        ge=0,
        description="ended jobs are kept so long (DIRAC's default), and their events",
    )
    keep_directories_days: float = Field(
        default=7.0,
        ge=0,
        description="embedded: working directories of ended jobs are kept so long",
    )
    prune_interval_s: float = Field(
        default=600.0, gt=0, description="how often what is past its time is deleted"
    )
