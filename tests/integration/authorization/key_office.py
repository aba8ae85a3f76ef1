"""Short ways to say what tests of signing keys say again and again. Not for what is tested."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from integration.authorization.policy_office import Caller, Office

from gridlane.authorization.v1.signing_key_pb2 import SigningKey, SigningKeyState
from gridlane.authorization.v1.signing_key_service_pb2 import (
    ListSigningKeysRequest,
    RotateSigningKeyRequest,
)
from gridlane_authorization.key_files import KeyFiles, read_key

PUBLISHED: Final = SigningKeyState.SIGNING_KEY_STATE_PUBLISHED
ACTIVE: Final = SigningKeyState.SIGNING_KEY_STATE_ACTIVE
RETIRED: Final = SigningKeyState.SIGNING_KEY_STATE_RETIRED
REVOKED: Final = SigningKeyState.SIGNING_KEY_STATE_REVOKED
DAY_S: Final = 86_400
DAY_US: Final = DAY_S * 1_000_000
_WAIT_S: Final = 10.0


async def rotated(who: Caller, seconds: float = 0.0, **fields: Any) -> SigningKey:
    """Has a key replaced; returns the new one."""
    key: SigningKey = await who(who.keys.RotateSigningKey, asking(seconds, **fields))
    return key


def asking(seconds: float = 0.0, **fields: Any) -> RotateSigningKeyRequest:
    """The request that replaces a key, at once or after so many seconds."""
    request = RotateSigningKeyRequest(**fields)
    if seconds:
        request.publish_for.CopyFrom(Duration(nanos=round(seconds % 1 * 1e9), seconds=int(seconds)))
    return request


async def listed(who: Caller, size: int = 0) -> list[SigningKey]:
    """All keys that it sees, page by page."""
    request = ListSigningKeysRequest(page_size=size)
    return await who.listed(who.keys.ListSigningKeys, request, "signing_keys")


async def states(who: Caller) -> list[tuple[str, int]]:
    """Names and states of all keys that it sees."""
    return [(key.name, key.state) for key in await listed(who)]


async def eventually(holds: Callable[[], Awaitable[bool]]) -> None:
    """Waits until something holds."""
    async with asyncio.timeout(_WAIT_S):
        while not await holds():
            await asyncio.sleep(0.02)


def user(keyed: Office, subject: str = "ada") -> Caller:
    """Somebody with a token that the present key signed."""
    return keyed.caller(subject, token=keyed.signer.sign_user(subject, lifetime_s=600))


def signs(files: KeyFiles) -> str:
    """The name of the key in the file that signs."""
    return f"signingKeys/{read_key(files.key).kid}"


def published(files: KeyFiles) -> dict[str, dict[str, Any]]:
    """What is told of each key to those who verify, by the key's name."""
    assert files.jwks is not None
    return {f"signingKeys/{key['kid']}": key for key in json.loads(files.jwks.read_bytes())["keys"]}


async def is_active(keyed: Office, name: str) -> bool:
    """Whether a key is listed as the one that signs."""
    return (name, ACTIVE) in await states(keyed.root)


async def signs_with(keyed: Office, name: str) -> bool:
    """Whether a replica signs with a key."""
    return f"signingKeys/{keyed.signer.key.kid}" == name
