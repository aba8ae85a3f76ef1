"""The roles, by name. Responsible for nothing else: what each may do is `permissions`', who holds
which is `policy`'s.
"""

from enum import StrEnum
from typing import Final


class Role(StrEnum):
    """The roles of the gLite File Transfer Service, and those of DIRAC's properties that they lack:
    JobSharing, GenericPilot, JobMonitor. REGULAR needs no binding.
    """

    ADMIN = "admin"
    CHANNEL_MANAGER = "channel_manager"
    VO_MANAGER = "vo_manager"
    SUBMITTER = "submitter"
    REGULAR = "regular"
    VETOED = "vetoed"
    JOB_SHARER = "job_sharer"
    PILOT = "pilot"
    JOB_MONITOR = "job_monitor"


IN_ITS_VOS: Final = (Role.SUBMITTER, Role.JOB_SHARER, Role.PILOT, Role.JOB_MONITOR)
"""The roles that count only in VOs to which their holder belongs."""
