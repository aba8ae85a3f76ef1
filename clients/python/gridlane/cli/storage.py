"""`gridlane storage`: storage elements."""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from gridlane.cli import terminal, units
from gridlane.cli.session import connect
from gridlane.cli.terminal import Output, plain

if TYPE_CHECKING:
    from gridlane.transfer.v1.storage_element_pb2 import StorageElement

app = typer.Typer(help="Storage elements: list.", no_args_is_help=True)


@app.callback()
def storage() -> None:
    """Storage elements."""


@app.command("list")
def list_elements(output: Output = "text") -> None:
    """List storage elements by name."""
    with connect() as client:
        elements = list(client.storage.elements())
    columns = ("NAME", "MEDIUM", "READ", "WRITE", ">FREE", "VO PATHS", "ENDPOINTS")
    terminal.show_list(elements, columns, _row, "no storage elements", output)


def _row(element: StorageElement) -> tuple[str, ...]:
    from gridlane.states import enum_word
    from gridlane.transfer.v1.storage_element_pb2 import StorageMedium

    internal = " (internal)" if element.internal else ""
    return (
        element.name.removeprefix("storageElements/") + internal,
        enum_word(StorageMedium, element.medium, "STORAGE_MEDIUM_").lower(),
        "yes" if element.readable else "[red]no[/]",
        "yes" if element.writable else "[red]no[/]",
        units.size(element.free_bytes) if element.free_bytes >= 0 else "",
        plain(", ".join(f"{vo}: LFN:{path}" for vo, path in sorted(element.vo_paths.items()))),
        plain(", ".join(endpoint.base_url for endpoint in element.endpoints)),
    )
