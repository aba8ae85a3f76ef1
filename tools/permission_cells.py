"""The reviewed table of who may do what, read: `tests/contract/permission_cells.txt`, whose head
says what its words mean.

Responsible for turning its words into what a caller of a role gets, by method and by how what it
names is related to it. Nothing here comes from the code that decides.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

FILE: Final = Path(__file__).parent.parent / "tests" / "contract" / "permission_cells.txt"

ROLES: Final = (
    "admin",
    "channel manager",
    "VO manager",
    "submitter",
    "regular",
    "job sharer",
    "pilot",
    "job monitor",
    "vetoed",
)
"""The columns of cells."""

RELATIONS: Final = ("own", "group", "bound", "vo", "managed", "channel", "foreign", "absent")
"""How a row may be related to the caller, each in that way alone but for `group`, which is also of
the VO that the role is bound to, and both of them of a VO to which the caller belongs. `absent`:
there is no such row.
"""

_COVERED: Final = {
    "-": frozenset[str](),
    "empty": frozenset[str](),
    "all": frozenset(RELATIONS) - {"absent"},
    "own": frozenset({"own"}),
    "group": frozenset({"group"}),
    "bound": frozenset({"group", "bound"}),
    "vo": frozenset({"group", "bound", "vo"}),
    "managed": frozenset({"managed"}),
    "channel": frozenset({"channel"}),
}
KINDS: Final = ("one", "every", "bulk", "list", "place", "places", "none")
TELLS_NOTHING: Final = ("one", "every", "bulk")
"""The kinds of methods that answer what is out of reach as what does not exist."""

_SCOPES: Final = {
    "r": "storage.read",
    "c": "storage.create",
    "m": "storage.modify",
    "s": "storage.stage",
    "p": "storage.poll",
}
_SERVICES: Final = frozenset({"authorization", "transfer", "workload", "reporting", "gateway"})


@dataclass(frozen=True)
class Cell:
    """What a role's caller reaches: `word` as it is written, the relations on which it acts, and
    those whose rows it may see."""

    word: str
    acts: frozenset[str]
    sees: frozenset[str]

    @classmethod
    def read(cls, word: str) -> Cell:
        """Reads "own+managed/vo"."""
        acts, _, seen = word.partition("/")
        acted = frozenset[str]().union(*(_COVERED[part] for part in acts.split("+")))
        more = frozenset[str]().union(*(_COVERED[part] for part in seen.split("+") if part))
        return cls(word, acted, acted | more)

    def answer(self, kind: str, relation: str) -> str:
        """What a method of a kind answers about a row of a relation.

        Returns:
            "allowed", "denied" (PERMISSION_DENIED), "hidden" (NOT_FOUND), "empty" or "filtered".
        """
        if self.word in ("-", "empty"):
            return {"-": "denied", "empty": "empty"}[self.word]
        if kind == "none" or relation in self.acts:
            return "allowed"
        if kind == "list":
            return "filtered"
        if kind in TELLS_NOTHING:
            return "denied" if relation in self.sees else "hidden"
        return "hidden" if relation == "absent" and self.word == "all" else "denied"


@dataclass
class Block:
    """A permission: its cells by role, for jobs that are readable within their VO and for jobs that
    are not, who else may, and the methods, each with its kind."""

    permission: str
    cells: dict[str, Cell]
    closed: dict[str, Cell]
    services: frozenset[str]
    by_jobs: bool
    via: frozenset[str]
    scopes: frozenset[str]
    whole: bool
    later: bool = False
    methods: dict[str, str] = field(default_factory=dict)


def blocks() -> list[Block]:
    """Every permission of the table, in its order; the one without an identity is `anonymous`."""
    found: list[Block] = []
    for line in FILE.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        words = line.split()
        if not line.startswith(" "):
            found.append(_block(words))
        elif words[0] == "closed":
            found[-1].closed = _cells(words[1:])
        elif words[0] == "later":
            found[-1].later = True
        else:
            for method in words[1:]:
                if method in found[-1].methods:
                    raise ValueError(f"{method} stands twice")
                found[-1].methods[method] = words[0]
    return found


def enumerated(read: list[Block]) -> Iterator[tuple[Block, str, str, str, str, str]]:
    """Every cell: block, method, kind, role, relation, and what is answered."""
    for block in read:
        for method, kind in block.methods.items():
            for role, cell in block.cells.items():
                for relation in RELATIONS:
                    yield block, method, kind, role, relation, cell.answer(kind, relation)


def _block(words: list[str]) -> Block:
    permission, rest = words[0], words[1:]
    if permission == "anonymous":
        rest = ["all"] * len(ROLES)
    cells, options = _cells(rest[: len(ROLES)]), rest[len(ROLES) :]
    given = dict(option.partition("=")[::2] for option in options)
    if not given.keys() <= {"services", "job", "via", "scopes", "whole"}:
        raise ValueError(f"not understood: {options}")
    services = given.get("services", "")
    return Block(
        permission,
        cells,
        cells,
        services=_SERVICES if services == "*" else _listed(services),
        by_jobs="job" in given,
        via=_listed(given.get("via", "")),
        scopes=frozenset(_SCOPES.get(s, s) for s in _listed(given.get("scopes", ""))),
        whole="whole" in given,
    )


def _cells(words: list[str]) -> dict[str, Cell]:
    return dict(zip(ROLES, map(Cell.read, words), strict=True))


def _listed(text: str) -> frozenset[str]:
    return frozenset(filter(None, text.split(",")))
