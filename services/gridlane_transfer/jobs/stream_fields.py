"""Fields of a job that came in parts, named as those of the whole job.

Responsible for the violations of an error that a part was refused with: "transfer_job.files[3]" of
the part that begins with the file 70120 is "files[70123]" to the caller.
"""

import re
from collections.abc import Callable
from typing import Final

from google.protobuf.message import Message
from google.rpc import error_details_pb2

from gridlane_kit.errors import GridlaneError

_JOB: Final = "transfer_job."
_OF_A_FILE: Final = "transfer_job.files["
_INDEX: Final = re.compile(r"(\d+)(.*)", re.DOTALL)


def in_whole_job(error: GridlaneError, first: int, of_a_file: str = _OF_A_FILE) -> GridlaneError:
    """The error of a part.

    Parameters:
        first: the place in the whole job of the part's first file.
        of_a_file: what the fields of the part's files begin with.
    """

    def renamed(field: str) -> str:
        if field.startswith(of_a_file):
            match = _INDEX.match(field[len(of_a_file) :])
            if match is not None:
                return f"files[{int(match[1]) + first}{match[2]}"
        return f"header.{field}" if field.startswith(_JOB) else field

    return _renamed(error, renamed)


def below(error: GridlaneError, prefix: str) -> GridlaneError:
    """The error of a message that stands in another one, below `prefix`."""
    return _renamed(error, lambda field: prefix + field)


def _renamed(error: GridlaneError, rename: Callable[[str], str]) -> GridlaneError:
    metadata = dict(error.metadata)
    if "field" in metadata:
        metadata["field"] = rename(metadata["field"])
    message = error.message
    details: list[Message] = []
    for detail in error.details:
        if isinstance(detail, error_details_pb2.BadRequest):
            renamed = error_details_pb2.BadRequest()
            for violation in detail.field_violations:
                field = rename(violation.field)
                renamed.field_violations.add(field=field, description=violation.description)
            told = renamed.field_violations
            message = "; ".join(f"{one.field}: {one.description}" for one in told)
            details.append(renamed)
        else:
            details.append(detail)
    return GridlaneError(error.reason, message, metadata, details)
