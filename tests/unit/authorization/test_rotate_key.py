"""The signing key is replaced: whenever the one who does it dies, what is signed can be proven."""

import json
import time
from pathlib import Path

import pytest

from gridlane_authorization.key_files import KeyFiles, rotate_key
from gridlane_authorization.tokens import open_signer, read_signer
from gridlane_kit.data_directory import write_secret
from gridlane_kit.errors import GridlaneError
from gridlane_kit.issuer_keys import FileKeys
from gridlane_kit.tokens import TokenVerifier

ISSUER, AUDIENCE = "https://issuer.test/", "gridlane"
DAY_S = 86_400


class KilledError(Exception):
    """The process ends here."""


@pytest.fixture
def files(tmp_path: Path) -> KeyFiles:
    open_signer(tmp_path, ISSUER, AUDIENCE)
    return KeyFiles.in_folder(tmp_path)


def signed(files: KeyFiles) -> str:
    return read_signer(files.key, ISSUER, AUDIENCE).sign_user("ada", lifetime_s=60)


async def is_good(files: KeyFiles, token: str) -> bool:
    """Whether a service that begins now, with the public keys as they are, believes a token."""
    assert files.jwks is not None
    try:
        await TokenVerifier({ISSUER: FileKeys(files.jwks)}, AUDIENCE).verify(token)
    except GridlaneError:
        return False
    return True


async def test_tokens_of_both_keys_are_good_after_a_rotation(files: KeyFiles) -> None:
    old = signed(files)
    kid = rotate_key(files, 60.0)
    new = signed(files)
    assert (await is_good(files, old), await is_good(files, new)) == (True, True)
    assert files.jwks is not None
    first, second = json.loads(files.jwks.read_bytes())["keys"]
    assert (first["kid"], "exp" in first) == (kid, False)
    assert 50 < second["exp"] - time.time() <= 60
    assert "d" not in first
    assert "d" not in second


async def test_an_old_key_is_kept_through_further_rotations_and_until_its_time_is_over(
    files: KeyFiles, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = signed(files)
    rotate_key(files, 3600.0)
    rotate_key(files, 60.0)
    assert await is_good(files, old)
    assert files.jwks is not None
    assert len(json.loads(files.jwks.read_bytes())["keys"]) == 3
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 61)
    rotate_key(files, 3600.0)
    assert len(json.loads(files.jwks.read_bytes())["keys"]) == 3


async def test_a_key_that_others_know_proves_nothing_any_more(files: KeyFiles) -> None:
    before = signed(files)
    rotate_key(files, 3600.0)
    old = signed(files)
    rotate_key(files, 0.0)
    assert [await is_good(files, token) for token in (before, old)] == [False, False]
    assert await is_good(files, signed(files))


@pytest.mark.parametrize("keep_s", [0.0, 3600.0])
@pytest.mark.parametrize("writes", [0, 1, 2])
async def test_whoever_dies_while_rotating_leaves_what_can_be_proven(
    files: KeyFiles, monkeypatch: pytest.MonkeyPatch, writes: int, keep_s: float
) -> None:
    old, left = signed(files), iter(range(writes))

    def dying(path: Path, content: bytes, *, mode: int = 0o600) -> None:
        if next(left, None) is None:
            raise KilledError
        write_secret(path, content, mode=mode)

    monkeypatch.setattr("gridlane_authorization.key_files.write_secret", dying)
    with pytest.raises(KilledError):
        rotate_key(files, keep_s)
    monkeypatch.undo()
    for _ in range(2):
        assert await is_good(files, signed(files))
        assert await is_good(files, old)
        open_signer(files.key.parent, ISSUER, AUDIENCE)  # the server begins again
    rotate_key(files, 0.0)
    assert await is_good(files, signed(files))
    assert not await is_good(files, old)


async def test_the_mode_of_the_published_keys_stays(files: KeyFiles) -> None:
    assert files.jwks is not None
    files.jwks.chmod(0o644)
    rotate_key(files, 60.0)
    assert files.jwks.stat().st_mode & 0o777 == 0o644
    assert files.key.stat().st_mode & 0o777 == 0o600


async def test_spoilt_public_keys_are_made_anew(files: KeyFiles) -> None:
    assert files.jwks is not None
    for spoilt in ("{", "[]", '{"keys": [7]}', '{"keys": [{"exp": "x"}]}'):
        files.jwks.write_text(spoilt)
        signer = open_signer(files.key.parent, ISSUER, AUDIENCE)
        assert signer.jwks() == json.loads(files.jwks.read_bytes())
        assert await is_good(files, signed(files))


def test_without_a_place_for_public_keys_there_is_no_rotation(files: KeyFiles) -> None:
    with pytest.raises(ValueError, match="not known"):
        rotate_key(KeyFiles(files.key, None), 60.0)
