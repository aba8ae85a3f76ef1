"""Roles, and what a veto does to work, as words: "vo_manager" for the contract's ROLE_VO_MANAGER.

Responsible for both directions. Which role may do what is said in docs/reference/permissions.md.
"""

from __future__ import annotations

from typing import Final

from gridlane.authorization.v1 import policy_pb2
from gridlane.states import enum_word

_ROLE: Final = "ROLE_"
_ACTION: Final = "WORK_ACTION_"
_USER: Final = "_USER"


def role_word(role: int) -> str:
    """ "vo_manager", "vetoed"; a number that this client does not know stays a number."""
    return enum_word(policy_pb2.Role, role, _ROLE).removesuffix(_USER).lower()


def role_of(word: str) -> policy_pb2.Role.ValueType:
    """The role of a word, however it is written: "vo_manager", "VO-Manager", "VETOED_USER".

    Raises:
        ValueError: there is no such role.
    """
    plain = word.strip().upper().replace("-", "_").replace(" ", "_")
    for name, number in policy_pb2.Role.items():
        if number and plain in (name.removeprefix(_ROLE), _short(name)):
            return number
    words = ", ".join(role_word(n) for n in policy_pb2.Role.values() if n)
    raise ValueError(f"{word!r} is not a role: expected one of {words}")


def filter_word(word: str) -> str:
    """How filters spell a role: "VETOED_USER".

    Raises:
        ValueError: there is no such role.
    """
    return policy_pb2.Role.Name(role_of(word)).removeprefix(_ROLE)


def work_action_word(action: int) -> str:
    """ "hold", "keep", "cancel"; empty when there is none."""
    return enum_word(policy_pb2.WorkAction, action, _ACTION).lower() if action else ""


def work_action_of(word: str | None) -> policy_pb2.WorkAction.ValueType:
    """The action of a word; None: the default.

    Raises:
        ValueError: there is none of that name.
    """
    if word is None:
        return policy_pb2.WORK_ACTION_UNSPECIFIED
    name = f"{_ACTION}{word.upper()}"
    if name not in policy_pb2.WorkAction.keys()[1:]:
        raise ValueError(f"{word!r} is no action on work: expected keep, hold or cancel")
    return policy_pb2.WorkAction.Value(name)


def _short(name: str) -> str:
    return name.removeprefix(_ROLE).removesuffix(_USER)
