"""Where the deployment's signing keys lie: their files, and the order in which these are written.

Two files belong to the key that signs: the private one (PEM), and a JWKS with the public halves
that everybody proves tokens with: the key's own, those of keys before it until the last of their
tokens ends, and that of the next one. A key that does not sign yet lies beside the first file,
`authorization.<kid>.pem` beside `authorization.pem`.

Responsible for reading and writing them, for the lock that keeps writers apart, and for replacing
the key without a server (`rotate_key`). Not for the lives of keys (`key_lives`).
"""

import asyncio
import json
import os
import re
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from gridlane_authorization.key_lives import Found, Jwk
from gridlane_kit.data_directory import LockedError, take_lock, write_secret
from gridlane_kit.issuer_keys import file_stamp
from gridlane_kit.tokens import dump_key, load_key, new_key

LONGEST_TOKEN_DAYS: Final = 30
"""For how long a token is good at most that a call is answered with (`TokenService`)."""
_LOCK_AGAIN_S: Final = 0.02
_LOCK_PATIENCE_S: Final = 10.0
"""How long is waited for another writer: it reads a few rows and writes two files."""

_KEY_FILE: Final = "authorization.pem"
_JWKS_FILE: Final = "jwks.json"
_DAY_S: Final = 86_400
_THUMBPRINT: Final = re.compile(r"[A-Za-z0-9_-]{43}")
_MAX_KID: Final = 64


class SigningKeyError(Exception):
    """The signing key cannot be used; the message says why, and the cure."""


@dataclass(frozen=True, slots=True)
class KeyFiles:
    """The two files of the signing key; `jwks` None: another program keeps the public halves."""

    key: Path
    jwks: Path | None

    @classmethod
    def in_folder(cls, keys: Path) -> "KeyFiles":
        """The files of an embedded server, in its folder for keys."""
        return cls(keys / _KEY_FILE, keys / _JWKS_FILE)

    @property
    def stamps(self) -> tuple[object, object]:
        """What changes when one of them is replaced."""
        return file_stamp(self.key), None if self.jwks is None else file_stamp(self.jwks)

    @property
    def lock(self) -> Path:
        """Held by whoever changes them."""
        return self.key.with_name(f".{self.key.name}.lock")

    def staged(self, kid: str) -> Path:
        """Where the private half of a key lies that does not sign yet."""
        return self.key.with_name(f"{self.key.stem}.{kid}{self.key.suffix}")

    def staged_kids(self) -> frozenset[str]:
        """The ids of the keys that lie so."""
        before, after = f"{self.key.stem}.", self.key.suffix
        names = (file.name for file in self.key.parent.glob(f"{before}*{after}"))
        kids = (name[len(before) : len(name) - len(after)] for name in names)
        return frozenset(kid for kid in kids if _THUMBPRINT.fullmatch(kid))

    def stage(self, key: ECKey) -> None:
        """Puts the private half of a key beside the one that signs.

        Raises:
            OSError: that, or the JWKS after it, cannot be written.
        """
        write_secret(self.staged(str(key.kid)), dump_key(key))
        if self.jwks is not None:
            probe = self.jwks.with_name(f".{self.jwks.name}.{key.kid}")
            write_secret(probe, b"")
            probe.unlink()

    def unstage(self, kid: str) -> None:
        """Removes the private half of a key that is not to sign."""
        self.staged(kid).unlink(missing_ok=True)

    def promote(self, kid: str) -> ECKey:
        """Has a key sign from now on, for those who read the file; returns it.

        Raises:
            SigningKeyError, OSError: it cannot be read or written.
        """
        key = read_key(self.staged(kid))
        write_secret(self.key, dump_key(key))
        return key

    def found(self) -> tuple[Found, ECKey]:
        """Returns what the files say, and the key that signs.

        Raises:
            SigningKeyError, OSError: the key cannot be read.
        """
        key = read_key(self.key)
        published = None if self.jwks is None else read_published(self.jwks)
        return Found(key.as_dict(private=False), published, self.staged_kids()), key

    def publish(self, keys: Sequence[Jwk]) -> None:
        """Replaces the JWKS, whole or not at all; its mode stays.

        Raises:
            OSError: it cannot be written.
        """
        if self.jwks is not None:
            mode = self.jwks.stat().st_mode & 0o777 if self.jwks.exists() else 0o600
            write_secret(self.jwks, json.dumps({"keys": list(keys)}, indent=2).encode(), mode=mode)


def read_key(file: Path) -> ECKey:
    """Reads a private key.

    Raises:
        SigningKeyError: the file holds no P-256 private key.
        OSError: it cannot be read.
    """
    try:
        return load_key(file.read_bytes())
    except (ValueError, JoseError) as error:
        raise SigningKeyError(
            f"{file} holds no P-256 private key in PEM: put the right one back, or remove the file"
            " to have a new key made (every token signed so far ends with the old one)"
        ) from error


def read_published(jwks: Path) -> Sequence[Jwk] | None:
    """Reads the public halves; None when there are none that can be read.

    Entries that no token of Gridlane's own names are left out.
    """
    try:
        entries = json.loads(jwks.read_bytes())["keys"]
        return [entry for entry in entries if _is_ours(entry)] if _is_list(entries) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def others(published: Sequence[Jwk] | None, kid: str) -> Sequence[Jwk]:
    """Returns the public halves beside that of the key that signs, whose time is not over."""
    now_s = int(time.time())
    # One without an end was left behind by a change that did not come to its end.
    dated = [{"exp": now_s + LONGEST_TOKEN_DAYS * _DAY_S, **entry} for entry in published or ()]
    return [entry for entry in dated if entry["kid"] != kid and entry["exp"] > now_s]


@contextmanager
def held(files: KeyFiles) -> Iterator[None]:
    """Keeps other writers of the files away; waits for one, and blocks meanwhile.

    Raises:
        LockedError: another one does not come to its end.
        OSError: there can be no lock.
    """
    ends = time.monotonic() + _LOCK_PATIENCE_S
    while (descriptor := _lock(files, ends)) is None:
        time.sleep(_LOCK_AGAIN_S)
    try:
        yield
    finally:
        os.close(descriptor)


@asynccontextmanager
async def held_by_server(files: KeyFiles) -> AsyncIterator[None]:
    """As `held`, in an event loop.

    Raises:
        LockedError, OSError: as `held`.
    """
    ends = time.monotonic() + _LOCK_PATIENCE_S
    while (descriptor := _lock(files, ends)) is None:  # noqa: ASYNC110 - no event tells of it
        await asyncio.sleep(_LOCK_AGAIN_S)
    try:
        yield
    finally:
        os.close(descriptor)


def _lock(files: KeyFiles, ends: float) -> int | None:
    """Takes the lock; None when another one has it, and there is time left to wait."""
    try:
        return take_lock(files.lock)
    except LockedError:
        if time.monotonic() > ends:
            raise
        return None


def rotate_key(files: KeyFiles, keep_s: float) -> str:
    """Replaces the signing key by a new one; servers that run take it up within a second or two.

    What the old key signed is good until it ends, at most for `keep_s` seconds; then the old key
    proves nothing any more. With 0, no key but the new one does from now on. The private half of
    the old one is gone. Killed anywhere, one of the two signs, and its public half is published.

    Returns:
        The id of the new key.

    Raises:
        SigningKeyError: the present key is not usable.
        ValueError: nobody knows where the public halves are.
        LockedError: a server that is changing the keys does not come to its end.
        OSError: a file cannot be read or written.
    """
    if files.jwks is None:
        raise ValueError("where the public keys (JWKS) lie is not known")
    with held(files):
        old, new = read_key(files.key), new_key()
        entry: Mapping[str, Any] = new.as_dict(private=False)
        retired = others(read_published(files.jwks), str(old.kid))
        # Published before it signs: nobody sees a token that the published keys cannot prove.
        files.publish([entry, old.as_dict(private=False), *retired])
        write_secret(files.key, dump_key(new))
        leaving = {**old.as_dict(private=False), "exp": int(time.time() + keep_s)}
        files.publish([entry, leaving, *retired] if keep_s > 0 else [entry])
    return str(new.kid)


def _is_list(entries: object) -> bool:
    return isinstance(entries, list) and all(isinstance(entry, dict) for entry in entries)


def _is_ours(entry: Jwk) -> bool:
    kid, ends = entry.get("kid"), entry.get("exp", 0)
    named = isinstance(kid, str) and 0 < len(kid) <= _MAX_KID
    return named and "d" not in entry and type(ends) is int
