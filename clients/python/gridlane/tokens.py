"""Where the token of a call comes from, and that a renewed one is used at once.

Responsible for the WLCG bearer token discovery and for reading token files again when they change.
Never writes a token anywhere. Source: WLCG Bearer Token Discovery 1.0
(https://doi.org/10.5281/zenodo.3937438).
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol


class TokenSource(Protocol):
    """Gives the token that a call is made with."""

    def current(self) -> str:
        """The token as it is now; empty when calls are to be made without."""


class FixedToken:
    """A token that was given as such."""

    def __init__(self, token: str) -> None:
        self._token = token.strip()

    def current(self) -> str:
        return self._token


class TokenFile:
    """A token that lies in a file, which somebody may renew at any time.

    Parameters:
        path: the file; it must be there when a call is made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._token = ""
        self._stamp: tuple[int, int, int] | None = None

    def current(self) -> str:
        """The token in the file, read again when the file is another than at the last call.

        Raises:
            TokenError: it cannot be read, or is empty.
        """
        try:
            found = self.path.stat()
            stamp = (found.st_mtime_ns, found.st_ino, found.st_size)
            if stamp != self._stamp:
                self._token = self.path.read_text(encoding="ascii").strip()
                self._stamp = stamp
        except OSError as error:
            raise TokenError(
                f"the token file {self.path} cannot be read: {error.strerror}"
            ) from error
        except UnicodeDecodeError as error:
            raise TokenError(f"the token file {self.path} holds no token: {error}") from error
        if not self._token:
            raise TokenError(f"the token file {self.path} is empty")
        return self._token


class TokenError(ValueError):
    """A token was promised and cannot be had."""


def wlcg_token(environ: Mapping[str, str], temporary: Path = Path("/tmp")) -> TokenSource | None:  # noqa: S108
    """The token by the WLCG discovery: the first of these that is set or there.

    1. the token in `BEARER_TOKEN`;
    2. the file named by `BEARER_TOKEN_FILE`, which must then be there;
    3. `$XDG_RUNTIME_DIR/bt_u<uid>`;
    4. `/tmp/bt_u<uid>`, only when XDG_RUNTIME_DIR is not set, and only when it is the caller's own
       file, since anybody may write there.

    Parameters:
        environ: the process's environment.
        temporary: the folder of step 4.
    """
    if environ.get("BEARER_TOKEN", "").strip():
        return FixedToken(environ["BEARER_TOKEN"])
    if environ.get("BEARER_TOKEN_FILE", "").strip():
        return TokenFile(Path(environ["BEARER_TOKEN_FILE"].strip()))
    runtime = environ.get("XDG_RUNTIME_DIR", "").strip()
    name = f"bt_u{os.getuid()}"
    path = Path(runtime) / name if runtime else temporary / name
    if path.is_file() and path.stat().st_uid == os.getuid():
        return TokenFile(path)
    return None
