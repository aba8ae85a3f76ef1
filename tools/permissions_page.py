"""The page of who may do what: every method of the contracts by role.

Responsible for asking the decision itself what a caller of each role reaches and for writing that
down by service. What a method answers to those who do not reach a thing is no part of the decision;
it comes from the reviewed table (`permission_cells`), which the tests hold against servers.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from contracts.model import Contract, Method, Service
from gridlane.configuration import SERVICES
from gridlane_kit.decision import Decision, decide
from gridlane_kit.foreign import FOREIGN_RULES
from gridlane_kit.identity import Principal
from gridlane_kit.permissions import PERMISSIONS, Rule
from gridlane_kit.policy import IN_ITS_VOS, Binding, Policy, Role
from permission_cells import blocks

_ISSUER: Final = "https://issuer.example/"
_GROUP: Final = "/bound/group"
_COLUMNS: Final = (
    ("Admin", Role.ADMIN),
    ("Channel Manager", Role.CHANNEL_MANAGER),
    ("VO Manager", Role.VO_MANAGER),
    ("Submitter", Role.SUBMITTER),
    ("Job Sharer", Role.JOB_SHARER),
    ("Pilot", Role.PILOT),
    ("Job Monitor", Role.JOB_MONITOR),
    ("Regular User", Role.REGULAR),
    ("Vetoed", Role.VETOED),
)
_OUT_OF_REACH: Final = {
    "one": "as absent",
    "every": "as absent, the whole call",
    "bulk": "as absent, that item",
    "list": "left out",
    "place": "denied",
    "places": "denied, that item",
    "none": "",
}
_INTRODUCTION: Final = """# Who may do what

Every call is decided in the service that is called, from the policy that Authorization keeps: a
veto first, then the caller's roles, then the token's scopes, which only narrow; last, the query
itself leaves out what is not within reach. Roles are given by bindings (`RoleService`), to an
identity or to a group: everybody whose token asserts the group and who belongs to its virtual
organisation (VO). They add up. Whoever is authenticated and not vetoed is a Regular User, and what
that gives is in every other column too.

| word | what is within reach |
|---|---|
| all | everything |
| own | what the caller made, or is |
| group | what was made under the group in which the caller acts (`active_group`), in a VO for \
which the role is bound |
| bound VO | what belongs to a VO for which the role is bound and to which the caller belongs |
| VO | what belongs to any VO to which the caller belongs; with †: where the policy has jobs \
readable within their VO |
| managed VO | what belongs to the VO that the caller manages |
| channel | what lies on the channel that the caller manages |
| — | nothing: `PERMISSION_DENIED`, whatever the call names |
| empty | nothing, without an error |

| out of reach | what a call gets that names something else |
|---|---|
| as absent | `NOT_FOUND`, in the very words of what does not exist; `PERMISSION_DENIED` where \
another right lets the caller see it |
| as absent, the whole call | the same: one such name, and none is answered |
| as absent, that item | the same, in the place of that item; the others are answered |
| left out | it is not in the list |
| denied | `PERMISSION_DENIED`, whether it exists or not |
| denied, that item | the same, in the place of that item; the others are answered |

Tokens that carry `storage.` or `compute.` scopes are narrowed to them, and need one of those named
in the last column; "whole" marks what a narrowed token never does. A file's path must lie within
the scope's too. The same column names the services that may act so for themselves, those through
which alone callers may, and where the token that each running job has is good, for that job.
"""


def permissions_page(contract: Contract) -> Iterator[str]:
    """The page, by service.

    Raises:
        KeyError: a method that the reviewed table lacks.
    """
    kinds = {name: kind for block in blocks() for name, kind in block.methods.items()}
    yield _INTRODUCTION
    for file in contract.files:
        for service in file.services:
            yield from _section(f"{file.package}.{service.short}", _rows(service, kinds))
    foreign = [
        _line(name, rule.permission, kinds[name]) for name, rule in sorted(FOREIGN_RULES.items())
    ]
    yield from _section("Contracts of others", foreign)
    named = {method.permission for method in contract.methods}
    named |= {rule.permission for rule in FOREIGN_RULES.values() if rule.permission}
    ready = [_line("", permission, "none") for permission in PERMISSIONS if permission not in named]
    if ready:
        yield from _section("Rights that no method needs yet", ready)


def _section(title: str, lines: list[str]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield _row("method", *(title for title, _ in _COLUMNS), "out of reach", "scopes, and who else")
    yield "|---" * (len(_COLUMNS) + 3) + "|"
    yield from lines


def _rows(service: Service, kinds: dict[str, str]) -> list[str]:
    return [_of_method(service, method, kinds) for method in service.methods]


def _of_method(service: Service, method: Method, kinds: dict[str, str]) -> str:
    return _line(method.short, method.permission, kinds[f"{service.short}/{method.short}"])


def _line(method: str, permission: str | None, kind: str) -> str:
    if permission is None:
        return _row(f"`{method}`", *("all" for _ in _COLUMNS), "", "needs no identity")
    name = " ".join(f"`{text}`" for text in (method, permission) if text)
    cells = (_word(permission, role) for _, role in _COLUMNS)
    return _row(name, *cells, _OUT_OF_REACH[kind], _more(PERMISSIONS[permission]))


def _word(permission: str, role: Role) -> str:
    """What a caller of a role reaches, in the words of the legend."""
    open_, closed = (_decided(permission, role, readable) for readable in (True, False))
    if not open_.allowed:
        return "—"
    reach, narrower = open_.visibility, closed.visibility
    if reach.nothing:
        return "empty"
    if reach.everything:
        return "all"
    words = {
        "own": reach.owner is not None,
        "group": bool(narrower.groups),
        "bound VO": bool(narrower.vos) and narrower.vos == {"bound"},
        "VO": "its" in narrower.vos,
        "VO†": "its" in reach.vos - narrower.vos,
        "managed VO": "managed" in reach.vos,
        "channel": bool(reach.channels),
    }
    return ", ".join(word for word, holds in words.items() if holds)


def _decided(permission: str, role: Role, readable: bool) -> Decision:
    caller = Principal(
        _ISSUER,
        "somebody",
        vos=frozenset({"bound", "its"}),
        groups=frozenset({_GROUP}),
        active_group=_GROUP,
        actor=min(PERMISSIONS[permission].actors, default=None),
    )
    vo = {Role.VO_MANAGER: "managed"}.get(role, "bound" if role in IN_ITS_VOS else "")
    uid = "channel" if role is Role.CHANNEL_MANAGER else ""
    held = [] if role is Role.REGULAR else [Binding(_ISSUER, "somebody", role, vo, uid)]
    return decide(caller, permission, Policy(1, held, readable), 0)


def _more(rule: Rule) -> str:
    parts = [f"`{scope}`" for scope in sorted(rule.scopes)]
    scopes = " or ".join(parts) or ("whole" if rule.whole else "")
    others = {
        "services": "all" if rule.services >= set(SERVICES) else ", ".join(sorted(rule.services)),
        "through": ", ".join(sorted(rule.actors)),
        "jobs": "own" if rule.jobs else "",
    }
    told = [f"{who}: {which}" for who, which in others.items() if which]
    return "; ".join(filter(None, (scopes, *told)))


def _row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"
