"""The reference page of what transfers can be asked for, and what does it.

Responsible for the page's form; the capabilities are the contract's, who has them the code's.
"""

from __future__ import annotations

from collections.abc import Iterator

from contracts.model import Contract
from gridlane_transfer import capabilities
from gridlane_transfer.backends.embedded.mover import EmbeddedMover

_ENUM = "gridlane.transfer.v1.TransferCapability"
_FIELDS = (
    ("transfer_job", capabilities.JOB_FIELDS),
    ("transfer_job.files[]", capabilities.FILE_FIELDS),
    ("channel", capabilities.CHANNEL_FIELDS),
    ("SubmitDeletionJobRequest", capabilities.DELETION_FIELDS),
)


def capabilities_page(contract: Contract) -> Iterator[str]:
    """Every capability with who has it, and the fields that are refused since nobody has it."""
    yield "# What transfers can be asked for\n"
    yield (
        "A field that asks for a capability which nothing has is refused when it comes"
        " ([CAPABILITY_MISSING](errors.md#capability_missing)),\nand the error says what to ask for"
        " instead. `client.backends.list()` tells what a server has."
    )
    yield "\n| capability | what it is | who has it |\n|---|---|---|"
    for value in contract.enums[_ENUM].values:
        if value.number:
            yield _row(f"`{value.word}`", " ".join(value.comment.split()), _who_has(value.word))
    yield "\n## Fields that are refused\n"
    yield "| field | needs | instead |\n|---|---|---|"
    for path, fields in _FIELDS:
        for name, missing in fields.items():
            yield _row(f"`{path}.{name}`", f"`{missing.capability}`", missing.cure)


def _who_has(capability: str) -> str:
    if capability in capabilities.OF_EVERY_BACKEND:
        return "the service, whatever the backend"
    return "`embedded`" if capability in EmbeddedMover.capabilities else "nothing yet"


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"
