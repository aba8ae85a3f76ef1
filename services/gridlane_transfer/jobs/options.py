"""What few jobs ask for beyond what every job has, kept in one column.

Responsible for reading it from a description, for its text in the store, and for telling it again.
What it does is decided where it is used; whether it can be done at all, in `submission`.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration

from gridlane.transfer.v1 import transfer_job_pb2


@dataclass(frozen=True, slots=True)
class Options:
    """What a job asks for; the defaults ask for nothing.

    Parameters:
        retry_delay_us: how long a file waits for its next attempt; None: as its channel says.
        max_time_in_queue_us: how long a file may wait for its first start; None: for ever.
        timeout_us: how long an attempt may take; None: for ever.
        streams: for each file, at most; 0: the backend's choice.
        report_target_file: what lies at an existing target is told.
        strict_copy: the bytes are copied and nothing else is done; None: as the target's storage
            element says.
        disable_cleanup: what a failed attempt wrote stays.
        overwrite_intermediate: existing files are replaced on the way.
        selection_strategy: the number of a `SelectionStrategy`; 0: ORDERLY.
        backend: the only one that may move the files; empty: any.
        protocols: those that may be used, the preferred one first; empty: any.
    """

    retry_delay_us: int | None = None
    max_time_in_queue_us: int | None = None
    timeout_us: int | None = None
    streams: int = 0
    report_target_file: bool = False
    strict_copy: bool | None = None
    disable_cleanup: bool = False
    overwrite_intermediate: bool = False
    selection_strategy: int = 0
    backend: str = ""
    protocols: tuple[str, ...] = ()

    def to_json(self) -> str | None:
        """The text for the store; None when nothing is asked for."""
        if self == NOTHING:
            return None
        asked = {name: value for name, value in asdict(self).items() if value != _DEFAULTS[name]}
        return json.dumps(asked, separators=(",", ":"))

    def tell(self, message: transfer_job_pb2.TransferJob) -> None:
        """Set the fields of a message to what was asked for."""
        if self == NOTHING:
            return
        for name, value in asdict(self).items():
            if value == _DEFAULTS[name]:
                continue
            field = name.removesuffix("_us")
            if field != name:
                getattr(message, field).FromMicroseconds(value)
            elif name == "protocols":
                message.protocols.extend(value)
            else:
                setattr(message, field, value)


_DEFAULTS: Final[Mapping[str, Any]] = asdict(Options())
NOTHING: Final = Options()
"""Asks for nothing."""


def _micros(value: Duration) -> int:
    return value.ToMicroseconds()


# How the value of a field is kept; a field that is absent is one's that asks for nothing.
_KEPT: Final[Mapping[str, tuple[str, Callable[[Any], Any]]]] = {
    name.removesuffix("_us"): (name, _micros if name.endswith("_us") else tuple)
    for name in _DEFAULTS
    if name.endswith("_us") or name == "protocols"
}
_NAMES: Final = frozenset(field.name.removesuffix("_us") for field in fields(Options))


def asked_of(job: transfer_job_pb2.TransferJob) -> Options:
    """What a description asks for."""
    asked: dict[str, Any] = {}
    for field, value in job.ListFields():
        if field.name in _KEPT:
            name, keep = _KEPT[field.name]
            asked[name] = keep(value)
        elif field.name in _NAMES:
            asked[field.name] = value
    return Options(**asked) if asked else NOTHING


@lru_cache(maxsize=1024)
def options_of(text: str | None) -> Options:
    """What the store keeps of a job's options.

    Parameters:
        text: as `Options.to_json` wrote it.
    """
    if text is None:
        return NOTHING
    asked = json.loads(text)
    return Options(**{**asked, "protocols": tuple(asked.get("protocols", ()))})
