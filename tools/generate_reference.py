"""Makes the reference pages that follow from the code: states, settings, commands, contract.

    python tools/generate_reference.py           writes docs/reference/, a part of ARCHITECTURE.md
    python tools/generate_reference.py --check   fails when a page is not what the code says

Responsible for turning tables and comments into Markdown; says nothing of its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from capabilities_page import capabilities_page
from command_pages import client_commands_page, server_commands_page
from contracts.model import read_contract
from contracts.pages import contract_pages
from contracts.served import unserved, unserved_words
from gridlane.vocabularies.jobs import DIRAC
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_gateway.settings import GatewaySettings
from gridlane_kit.settings import ServerSettings, Settings
from gridlane_reporting.settings import ReportingSettings
from gridlane_server.configuration import PeerSettings
from gridlane_transfer import states as transfer_states
from gridlane_transfer.settings import TransferSettings
from gridlane_workload import states as workload_states
from gridlane_workload.settings import WorkloadSettings
from permissions_page import permissions_page
from vocabulary_pages import vocabularies_page

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
NOTICE = "<!-- Made by tools/generate_reference.py from the code; change it there. -->"

MAP = ROOT / "ARCHITECTURE.md"
PART_BEGINS = "<!-- From here on made by tools/generate_reference.py. -->"
PART_ENDS = "<!-- Until here. -->"

SETTINGS: tuple[tuple[str, type[Settings]], ...] = (
    ("server", ServerSettings),
    ("authorization", AuthorizationSettings),
    ("transfer", TransferSettings),
    ("workload", WorkloadSettings),
    ("reporting", ReportingSettings),
    ("gateway", GatewaySettings),
    ("peers", PeerSettings),
)


def states_page() -> Iterator[str]:
    """The state machines of jobs and of file transfers, and what follows for transfer jobs."""
    yield "# States\n"
    yield "## Jobs\n"
    yield "DIRAC's sixteen states and sixty transitions; any other update is refused.\n"
    yield "| state | may become | |\n|---|---|---|"
    for state, after in workload_states.TRANSITIONS.items():
        final = "ended" if state in workload_states.ENDED else ""
        yield _row(
            DIRAC[state],
            ", ".join(DIRAC[target] for target in sorted(after)),
            final,
        )
    yield "\n## File transfers\n"
    yield "The truth about a transfer job: its own state follows from those of its files.\n"
    yield "| state | may become | |\n|---|---|---|"
    for file_state, targets in transfer_states.FILE_TRANSITIONS.items():
        final = "final" if file_state in transfer_states.FILE_FINAL else ""
        yield _row(file_state.name, ", ".join(target.name for target in sorted(targets)), final)
    missing = [
        state.name
        for state in transfer_states.FileState
        if state not in transfer_states.FILE_TRANSITIONS
    ]
    yield f"\nIn the contract, and reported by no backend of this version: {', '.join(missing)}."


def settings_page() -> Iterator[str]:
    """Every setting of every service with its variable, default and meaning."""
    yield "# Settings\n"
    yield (
        "Strongest first: the command line, the environment (`__` nests), the service's table in"
        " the TOML file that\n`GRIDLANE_CONFIG` names, the default. `gridlane-server config` prints"
        " what is in force. A process that runs\none service reads `[server.<service>]` over"
        " `[server]`."
    )
    for service, settings in SETTINGS:
        yield f"\n## {service}\n"
        yield "| variable | default | meaning |\n|---|---|---|"
        for name, field in settings.model_fields.items():
            default = "" if field.default is PydanticUndefined else field.default
            yield _row(
                f"`GRIDLANE_{service.upper()}{settings.separator}{name.upper()}`",
                f"`{default}`" if isinstance(default, int | float | str) and default != "" else "",
                field.description or "",
            )
        yield from _inner_settings(service, settings)


def _inner_settings(path: str, settings: type[BaseModel]) -> Iterator[str]:
    """The fields of the settings that are tables of their own, or lists of them."""
    for name, field in settings.model_fields.items():
        listed = get_args(field.annotation)
        for inner in (field.annotation, *listed):
            if isinstance(inner, type) and issubclass(inner, BaseModel):
                each = "each `[[{}]]`" if listed else "`[{}]`"
                yield f"\n### {each.format(f'{path}.{name}')}\n"
                yield "| field | default | meaning |\n|---|---|---|"
                for own, one in inner.model_fields.items():
                    plain = isinstance(one.default, int | float | str) and one.default != ""
                    default = f"`{one.default}`" if plain else ""
                    yield _row(f"`{own}`", default, one.description or "")
                yield from _inner_settings(f"{path}.{name}", inner)


PAGES_MADE: dict[str, Callable[[], Iterator[str]]] = {
    "states.md": states_page,
    "vocabularies.md": vocabularies_page,
    "settings.md": settings_page,
    "commands.md": server_commands_page,
    "client-commands.md": client_commands_page,
}


def _row(*cells: str) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def made_pages() -> dict[Path, str]:
    """Every page with its whole text."""
    contract = read_contract(ROOT)
    missing = unserved(contract, ROOT)
    pages = {name: "\n".join(make()) for name, make in PAGES_MADE.items()}
    pages |= contract_pages(contract, missing)
    pages["permissions.md"] = "\n".join(permissions_page(contract))
    pages["capabilities.md"] = "\n".join(capabilities_page(contract))
    whole = {PAGES / name: f"{NOTICE}\n\n{text}\n" for name, text in pages.items()}
    return whole | {MAP: _with_part(MAP.read_text(), unserved_words(contract, missing))}


def _with_part(text: str, part: str) -> str:
    """A page with another text between the two marks of the part that is made."""
    before, begin, rest = text.partition(PART_BEGINS)
    _, end, after = rest.partition(PART_ENDS)
    if not (begin and end):
        raise ValueError(f"{MAP.name} has lost {PART_BEGINS} or {PART_ENDS}")
    return f"{before}{begin}\n{part}\n{end}{after}"


def left_over(pages: dict[Path, str]) -> list[Path]:
    """Pages of contracts that are no more."""
    return sorted(set((PAGES / "contract").rglob("*.md")) - pages.keys())


def write(pages: dict[Path, str]) -> None:
    """Writes the pages, and removes those that are left over."""
    for page in left_over(pages):
        page.unlink()
    for page, text in pages.items():
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text)


def main() -> int:
    """Writes the pages, or compares them.

    Returns:
        1 when a page is not what the code says and `--check` was given, else 0.
    """
    pages = made_pages()
    if "--check" not in sys.argv:
        write(pages)
        return 0
    stale = left_over(pages)
    stale += [p for p, text in pages.items() if not p.exists() or p.read_text() != text]
    if stale:
        names = ", ".join(str(page.relative_to(ROOT)) for page in stale)
        print(f"not what the code says: {names}; run tools/generate_reference.py")
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
