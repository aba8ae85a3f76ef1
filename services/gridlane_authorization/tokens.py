"""The deployment's signer, and the local user's token file.

Responsible for making both at the first start, and for keeping the token in the file good. The form
of a token and its checks are the kit's (`gridlane_kit.tokens`); where keys lie is `key_files`',
what becomes of them `key_upkeep`'s.
"""

import asyncio
import contextlib
from pathlib import Path
from typing import Final

import structlog

from gridlane_authorization.key_files import KeyFiles, others, read_key
from gridlane_authorization.store import LocalUser
from gridlane_kit.data_directory import write_secret
from gridlane_kit.failpoints import failpoint
from gridlane_kit.issuers import IssuerBook
from gridlane_kit.tokens import TokenSigner, TokenVerifier, dump_key, new_key

KEY_WRITTEN = failpoint("authorization.key.written")
TOKEN_WRITTEN = failpoint("authorization.token.written")

_DAY_S: Final = 86_400
_log = structlog.get_logger("gridlane.authorization")


def open_signer(keys: Path, issuer: str, audience: str) -> TokenSigner:
    """Reads the signing key, or makes it at the first start, and writes its public half beside it
    where that is not.

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
    found, key = files.found()
    signer = TokenSigner(key, issuer, audience, others(found.published, found.kid))
    if found.kid not in {entry["kid"] for entry in found.published or ()}:
        files.publish(signer.jwks()["keys"])
    return signer


def read_signer(file: Path, issuer: str, audience: str) -> TokenSigner:
    """Reads a signing key that is there.

    Raises:
        SigningKeyError: the file holds no P-256 private key.
        OSError: it cannot be read.
    """
    return TokenSigner(read_key(file), issuer, audience)


def verifier_of(signer: TokenSigner, outside: IssuerBook | None = None) -> TokenVerifier:
    """Returns a verifier that believes this signer, and the outside issuers."""
    return TokenVerifier({signer.issuer: signer.keys}, signer.audience, outside)


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
