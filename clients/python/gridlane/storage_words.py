"""Operations, access states and bans of storage elements, as words: "third_party_read" for the
contract's STORAGE_OPERATION_THIRD_PARTY_READ.

Responsible for both directions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from gridlane.states import enum_word
from gridlane.transfer.v1 import storage_ban_pb2, storage_element_pb2
from gridlane.type.v1 import checksum_pb2

_OPERATION: Final = "STORAGE_OPERATION_"
_ACCESS: Final = "ACCESS_STATE_"
_ACTION: Final = "BAN_ACTION_"
_CHECKSUM: Final = "CHECKSUM_TYPE_"


def operation_word(operation: int) -> str:
    """ "read", "third_party_write"."""
    return enum_word(storage_element_pb2.StorageOperation, operation, _OPERATION).lower()


def operations_of(words: Sequence[str]) -> list[storage_element_pb2.StorageOperation.ValueType]:
    """The operations of some words.

    Raises:
        ValueError: there is none of that name.
    """
    enum = storage_element_pb2.StorageOperation
    return [enum.Value(_name(enum.keys(), _OPERATION, word)) for word in words]


def access_word(state: int) -> str:
    """ "active", "banned"."""
    return enum_word(storage_element_pb2.AccessState, state, _ACCESS).lower()


def access_of(word: str) -> storage_element_pb2.AccessState.ValueType:
    """The access state of a word.

    Raises:
        ValueError: there is none of that name.
    """
    enum = storage_element_pb2.AccessState
    return enum.Value(_name(enum.keys(), _ACCESS, word))


def ban_action_word(action: int) -> str:
    """ "wait", "cancel"."""
    return enum_word(storage_ban_pb2.BanAction, action, _ACTION).lower()


def ban_action_of(word: str) -> storage_ban_pb2.BanAction.ValueType:
    """The action of a word.

    Raises:
        ValueError: there is none of that name.
    """
    enum = storage_ban_pb2.BanAction
    return enum.Value(_name(enum.keys(), _ACTION, word))


def checksum_word(number: int) -> str:
    """ "ADLER32"."""
    return enum_word(checksum_pb2.ChecksumType, number, _CHECKSUM)


def checksums_of(words: Sequence[str]) -> list[checksum_pb2.ChecksumType.ValueType]:
    """The checksum algorithms of some words.

    Raises:
        ValueError: there is none of that name.
    """
    enum = checksum_pb2.ChecksumType
    return [enum.Value(_name(enum.keys(), _CHECKSUM, word)) for word in words]


def _name(names: Sequence[str], prefix: str, word: str) -> str:
    name = prefix + word.strip().upper().replace("-", "_")
    if name not in names[1:]:
        words = ", ".join(one.removeprefix(prefix).lower() for one in names[1:])
        raise ValueError(f"{word!r}: expected one of {words}")
    return name
