"""The policy on disk: with it a service serves at its start while Authorization is away.

Responsible for the file's form: a line that names it, the time at which the policy was last known
to be the newest, a checksum, and the contract's snapshot. The time is written in place, so that to
confirm a large policy costs a few bytes. Whoever can write the file decides who may do what: it is
its owner's alone (mode 0600). When it is written is `policy_feed`'s.
"""

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Final

from google.protobuf.message import DecodeError

from gridlane.authorization.v1 import policy_service_pb2
from gridlane_kit.data_directory import write_secret
from gridlane_kit.policy import Policy, PolicyDraft
from gridlane_kit.policy_messages import snapshot_parts, take_part

_MAGIC: Final = b"gridlane policy 1\n"
_TIME_BYTES: Final = 8
_DIGEST_BYTES: Final = 32
_LENGTH_BYTES: Final = 4


class PolicyFileError(ValueError):
    """The file holds no policy; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class KeptPolicy:
    """A policy, the epoch in which its revision counts, and when it was last known to be the newest
    (microseconds since 1970-01-01 UTC)."""

    epoch: str
    policy: Policy
    confirmed_us: int


class PolicyFile:
    """The file; its folder exists. Its methods may be called from any thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Who comes later writes what is newer.
        self._turn = Lock()

    def write(self, kept: KeptPolicy) -> None:
        """Replaces the file, whole and durably.

        Raises:
            OSError: it cannot be written; the old one is there still.
        """
        content = bytearray()
        for part in snapshot_parts(kept.epoch, kept.policy):
            raw = part.SerializeToString()
            content += len(raw).to_bytes(_LENGTH_BYTES) + raw
        digest = hashlib.sha256(content).digest()
        confirmed = kept.confirmed_us.to_bytes(_TIME_BYTES)
        with self._turn:
            write_secret(self.path, _MAGIC + confirmed + digest + content)

    def confirm(self, confirmed_us: int) -> None:
        """Writes when the policy of the file was last known to be the newest.

        Raises:
            OSError: it cannot be written, or is gone.
        """
        with self._turn, self.path.open("r+b") as file:
            file.seek(len(_MAGIC))
            file.write(confirmed_us.to_bytes(_TIME_BYTES))
            file.flush()
            os.fsync(file.fileno())

    def read(self) -> KeptPolicy | None:
        """Returns the policy of the file; None when there is no file.

        Raises:
            PolicyFileError: the file holds something else, or is damaged.
            OSError: it cannot be read.
        """
        try:
            raw = self.path.read_bytes()
        except FileNotFoundError:
            return None
        start = len(_MAGIC) + _TIME_BYTES
        content = memoryview(raw)[start + _DIGEST_BYTES :]
        if not raw.startswith(_MAGIC):
            raise PolicyFileError(f"{self.path} is no policy of this version")
        if hashlib.sha256(content).digest() != raw[start : start + _DIGEST_BYTES]:
            raise PolicyFileError(f"{self.path} is damaged")
        try:
            epoch, policy = _policy_of(content)
        except (DecodeError, KeyError, IndexError) as error:
            raise PolicyFileError(f"{self.path} cannot be read: {error}") from None
        return KeptPolicy(epoch, policy, int.from_bytes(raw[len(_MAGIC) : start]))


def _policy_of(content: memoryview) -> tuple[str, Policy]:
    draft, place = PolicyDraft(), 0
    while True:
        size = int.from_bytes(content[place : place + _LENGTH_BYTES])
        place += _LENGTH_BYTES
        part = policy_service_pb2.PolicySnapshot.FromString(bytes(content[place : place + size]))
        place += size
        policy = take_part(draft, part)
        if policy is not None:
            return part.epoch, policy
        if place >= len(content):
            raise IndexError("it ends before its last part")
