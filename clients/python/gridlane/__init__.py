"""Gridlane's client: one typed control plane over the systems that move science's files and run its
jobs.

    import gridlane

    with gridlane.Client() as client:
        job = gridlane.new_job("wc -l data.csv", inputs={"data.csv": "LFN:/local/data.csv"})
        task = client.tasks.wait(client.tasks.submit(job).name)

Responsible for the names that programs use; each is imported from its module when it is first asked
for, so that `import gridlane` costs next to nothing. The generated messages lie in
`gridlane.<service>.v1`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gridlane.aio import AsyncClient
    from gridlane.client import Client
    from gridlane.configuration import ConfigurationError
    from gridlane.descriptions import (
        new_file,
        new_input,
        new_job,
        new_replica,
        new_transfer,
    )
    from gridlane.errors import (
        Aborted,
        AlreadyExists,
        Cancelled,
        DataLoss,
        DeadlineExceeded,
        FailedPrecondition,
        GridlaneError,
        Internal,
        InvalidArgument,
        NotFound,
        OutOfRange,
        PermissionDenied,
        ResourceExhausted,
        Unauthenticated,
        Unavailable,
        Unimplemented,
        Violation,
    )
    from gridlane.ids import uuid7
    from gridlane.retry import RetryPolicy
    from gridlane.tokens import TokenError

__all__ = [
    "Aborted",
    "AlreadyExists",
    "AsyncClient",
    "Cancelled",
    "Client",
    "ConfigurationError",
    "DataLoss",
    "DeadlineExceeded",
    "FailedPrecondition",
    "GridlaneError",
    "Internal",
    "InvalidArgument",
    "NotFound",
    "OutOfRange",
    "PermissionDenied",
    "ResourceExhausted",
    "RetryPolicy",
    "TokenError",
    "Unauthenticated",
    "Unavailable",
    "Unimplemented",
    "Violation",
    "new_file",
    "new_input",
    "new_job",
    "new_replica",
    "new_transfer",
    "uuid7",
]

# Those that are not listed are errors.
_HOMES = {
    "AsyncClient": "gridlane.aio",
    "Client": "gridlane.client",
    "ConfigurationError": "gridlane.configuration",
    "RetryPolicy": "gridlane.retry",
    "TokenError": "gridlane.tokens",
    "new_file": "gridlane.descriptions",
    "new_input": "gridlane.descriptions",
    "new_job": "gridlane.descriptions",
    "new_replica": "gridlane.descriptions",
    "new_transfer": "gridlane.descriptions",
    "uuid7": "gridlane.ids",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module 'gridlane' has no attribute {name!r}")
    value = getattr(import_module(_HOMES.get(name, "gridlane.errors")), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
