"""The deployment's signing key, and the local user's token file.

Responsible for where the key lies, for making both at the first start, and for keeping the token in
the file good while the server runs. The form of a token and its checks are the kit's
(`gridlane_kit.tokens`).
"""

import asyncio
import json
from pathlib import Path
from typing import Final

import structlog
from joserfc.errors import JoseError

from gridlane_authorization.store import LocalUser
from gridlane_kit.data_directory import write_secret
from gridlane_kit.failpoints import failpoint
from gridlane_kit.tokens import StaticKeys, TokenSigner, TokenVerifier, dump_key, load_key, new_key

KEY_WRITTEN = failpoint("authorization.key.written")
TOKEN_WRITTEN = failpoint("authorization.token.written")

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
    file = keys / _KEY_FILE
    if not file.exists():
        write_secret(file, dump_key(new_key()))
        KEY_WRITTEN()
    signer = read_signer(file, issuer, audience)
    write_secret(keys / _JWKS_FILE, json.dumps(signer.jwks(), indent=2).encode())
    return signer


def read_signer(file: Path, issuer: str, audience: str) -> TokenSigner:
    """Reads a signing key that is there.

    Raises:
        SigningKeyError: the file holds no P-256 private key.
        OSError: it cannot be read.
    """
    try:
        key = load_key(file.read_bytes())
    except (ValueError, JoseError) as error:
        raise SigningKeyError(file) from error
    return TokenSigner(key, issuer, audience)


def verifier_of(signer: TokenSigner) -> TokenVerifier:
    """Returns a verifier that believes this signer alone."""
    return TokenVerifier({signer.issuer: StaticKeys(signer.jwks())}, signer.audience)


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
        """Writes a new token each time two thirds of its life are over; runs until cancelled."""
        while True:
            await asyncio.sleep(self._lifetime_s * 2 / 3)
            try:
                await asyncio.to_thread(self.write)
            except OSError as error:
                # A third of the old token's life is left to put right what is wrong with the disk.
                _log.error("the local user's token could not be renewed", error=str(error))
