"""The deployment's signing key, and the local user's token file.

Responsible for where the key lies, for making both at the first start, for replacing the key while
servers run (`rotate_key`), and for keeping the token in the file good. The form of a token and its
checks are the kit's (`gridlane_kit.tokens`).

Two files belong to a key: the private one (PEM), and a JWKS with the public halves that everybody
proves tokens with: the key's own, and those of keys before it until the last of their tokens ends.
"""

import asyncio
import contextlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
from joserfc.errors import JoseError
from joserfc.jwk import ECKey

from gridlane_authorization.store import LocalUser
from gridlane_kit.data_directory import write_secret
from gridlane_kit.failpoints import failpoint
from gridlane_kit.issuer_keys import POLL_S, file_stamp
from gridlane_kit.issuers import IssuerBook
from gridlane_kit.tokens import TokenSigner, TokenVerifier, dump_key, load_key, new_key

KEY_WRITTEN = failpoint("authorization.key.written")
TOKEN_WRITTEN = failpoint("authorization.token.written")

LONGEST_TOKEN_DAYS: Final = 30
"""For how long a token is good at most that a call is answered with (`TokenService`)."""

_KEY_FILE: Final = "authorization.pem"
_JWKS_FILE: Final = "jwks.json"
_DAY_S: Final = 86_400
_log = structlog.get_logger("gridlane.authorization")


class SigningKeyError(Exception):
    """The signing key cannot be used; the message says why, and the cure."""

    def __init__(self, file: Path) -> None:
        super().__init__(
            f"{file} holds no P-256 private key in PEM: put the right one back, or remove the file"
            " to have a new key made (every token signed so far ends with the old one)"
        )


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


def open_signer(keys: Path, issuer: str, audience: str) -> TokenSigner:
    """Reads the signing key, or makes it at the first start, and writes its public half beside it.

    Parameters:
        keys: the folder (mode 0700) for `authorization.pem` (mode 0600) and `jwks.json`.
        issuer: `iss` of the tokens.
        audience: `aud` of the tokens.

    Raises:
        SigningKeyError: the file is there and holds no P-256 private key.
        OSError: the folder cannot be read or written.
    """
    files = KeyFiles.in_folder(keys)
    if not files.key.exists():
        write_secret(files.key, dump_key(new_key()))
        KEY_WRITTEN()
    signer = _signer(files, issuer, audience)
    write_secret(keys / _JWKS_FILE, _jwks_text(signer.jwks()))
    return signer


def read_signer(file: Path, issuer: str, audience: str) -> TokenSigner:
    """Reads a signing key that is there.

    Raises:
        SigningKeyError: the file holds no P-256 private key.
        OSError: it cannot be read.
    """
    return _signer(KeyFiles(file, None), issuer, audience)


def verifier_of(signer: TokenSigner, outside: IssuerBook | None = None) -> TokenVerifier:
    """Returns a verifier that believes this signer, and the outside issuers."""
    return TokenVerifier({signer.issuer: signer.keys}, signer.audience, outside)


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
        OSError: a file cannot be read or written.
    """
    if files.jwks is None:
        raise ValueError("where the public keys (JWKS) lie is not known")
    old, new = _read_key(files.key), new_key()
    entry, retired = new.as_dict(private=False), _retired(files.jwks, old)
    # Published before it signs: nobody sees a token that the published keys cannot prove.
    _publish(files.jwks, [entry, old.as_dict(private=False), *retired])
    write_secret(files.key, dump_key(new))
    leaving = {**old.as_dict(private=False), "exp": int(time.time() + keep_s)}
    _publish(files.jwks, [entry, leaving, *retired] if keep_s > 0 else [entry])
    return str(new.kid)


async def follow_key(signer: TokenSigner, files: KeyFiles) -> None:
    """Has a signer take up the key in its files when that is replaced; runs until cancelled."""
    seen = files.stamps
    while True:
        await asyncio.sleep(POLL_S)
        stamps = files.stamps
        if stamps == seen:
            continue
        seen = stamps
        try:
            key = _read_key(files.key)
            signer.replace_key(key, _retired(files.jwks, key))
            _log.info("the signing key was replaced", kid=key.kid)
        except (SigningKeyError, OSError) as error:
            _log.error("the signing key stays, the new one is not usable", error=str(error))


def _signer(files: KeyFiles, issuer: str, audience: str) -> TokenSigner:
    key = _read_key(files.key)
    return TokenSigner(key, issuer, audience, _retired(files.jwks, key))


def _read_key(file: Path) -> ECKey:
    try:
        return load_key(file.read_bytes())
    except (ValueError, JoseError) as error:
        raise SigningKeyError(file) from error


def _retired(jwks: Path | None, key: ECKey) -> Sequence[Mapping[str, Any]]:
    """Returns the public halves of the keys before this one whose time is not over."""
    if jwks is None or not jwks.exists():
        return ()
    now_s = int(time.time())
    try:
        entries = json.loads(jwks.read_bytes())["keys"]
        # One without an end was left behind by a change that did not come to its end.
        dated = [{"exp": now_s + LONGEST_TOKEN_DAYS * _DAY_S, **entry} for entry in entries]
        return [e for e in dated if e.get("kid") != key.kid and e["exp"] > now_s]
    except (OSError, ValueError, KeyError, TypeError) as error:
        _log.error("no key before the present one is believed", file=str(jwks), error=str(error))
        return ()


def _publish(jwks: Path, keys: Sequence[Mapping[str, Any]]) -> None:
    mode = jwks.stat().st_mode & 0o777 if jwks.exists() else 0o600
    write_secret(jwks, _jwks_text({"keys": keys}), mode=mode)


def _jwks_text(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode()


class LocalTokenFile:
    """The file with the local user's token (mode 0600), written at each start and before the token
    ends.

    Parameters:
        file: where it lies.
        lifetime_days: how long a token is good; a new one is written after two thirds of that.
    """

    def __init__(self, file: Path, signer: TokenSigner, user: LocalUser, lifetime_days: float):
        self._file = file
        self._signer = signer
        self._user = user
        self._lifetime_s = max(1, int(lifetime_days * _DAY_S))

    def write(self) -> None:
        """Signs a new token and puts it into the file; readers see the old one or the new one."""
        token = self._signer.sign_user(
            self._user.subject,
            display_name=self._user.subject,
            vos=[self._user.vo],
            lifetime_s=self._lifetime_s,
        )
        write_secret(self._file, token.encode())
        TOKEN_WRITTEN()

    async def keep_fresh(self) -> None:
        """Writes a new token each time two thirds of its life are over, and when the signing key
        was replaced; runs until cancelled."""
        replaced = asyncio.Event()
        self._signer.subscribe(replaced.set)
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(replaced.wait(), self._lifetime_s * 2 / 3)
            replaced.clear()
            try:
                await asyncio.to_thread(self.write)
            except OSError as error:
                # A third of the old token's life is left to put right what is wrong with the disk.
                _log.error("the local user's token could not be renewed", error=str(error))
