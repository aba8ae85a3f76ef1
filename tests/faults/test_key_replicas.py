"""Two processes of Authorization on one database and one folder of keys: one dies in the middle of
replacing the key that is known to others, and the other one ends it."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from endtoend.every_service import METHODS, OK, REFUSED, code_of, codes_of, until
from faults import cycles
from split import SplitServer
from support import CALL_SECONDS, ServerProcess, bearer, eventually

from gridlane.authorization.v1.signing_key_pb2 import SigningKeyState
from gridlane.authorization.v1.signing_key_service_pb2 import (
    ListSigningKeysRequest,
    RotateSigningKeyRequest,
)
from gridlane.authorization.v1.signing_key_service_pb2_grpc import SigningKeyServiceStub
from gridlane.ids import uuid7
from gridlane_authorization.key_files import read_key
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer

ENDED_S: Final = 5.0
"""It is looked after what others left undone once a second, here on a busy machine."""

pytestmark = [pytest.mark.five_processes, pytest.mark.timeout(180)]


@pytest.fixture
def replica(server: SplitServer, tmp_path: Path) -> Iterator[ServerProcess]:
    """A second process of Authorization; not yet started."""
    process = server.another("authorization", tmp_path / "replica")
    yield process
    process.close()
    print(process.output)


def signed(server: SplitServer, subject: str) -> str:
    """A token that the present key signs."""
    settings = AuthorizationSettings()
    signer = read_signer(server.token_key, settings.issuer, settings.audience)
    return signer.sign_user(subject, vos=["local"], lifetime_s=3600)


@pytest.mark.parametrize(
    "failpoint",
    [
        "authorization.change.committed",
        "authorization.signing_key.published",
        "authorization.signing_key.promoted",
    ],
)
def test_what_one_replica_began_the_other_one_ends(
    server: SplitServer, replica: ServerProcess, failpoint: str
) -> None:
    replica.start({"GRIDLANE_FAILPOINTS": failpoint})
    token = signed(server, "eve")
    assert codes_of(server, token) == [OK] * len(METHODS)
    request = RotateSigningKeyRequest(revoke_present=True, request_id=uuid7(), reason="lost")
    ca = Path(server.client_environment["GRIDLANE_CA"]).read_bytes()
    with grpc.secure_channel(replica.address, grpc.ssl_channel_credentials(ca)) as channel:
        rotate: Any = SigningKeyServiceStub(channel).RotateSigningKey
        with pytest.raises(grpc.RpcError):
            rotate(request, metadata=bearer(server.token), timeout=CALL_SECONDS)
    assert replica.wait_dead() == cycles.KILLED
    for path in METHODS.values():
        assert until(server, path, token, REFUSED) < ENDED_S
    keys = SigningKeyServiceStub(server.channel)
    new = f"signingKeys/{read_key(server.token_key).kid}"
    eventually(lambda: code_of(server, METHODS["authorization"], server.token) is OK)
    listed = server.call(keys.ListSigningKeys, ListSigningKeysRequest()).signing_keys
    active = [k.name for k in listed if k.state == SigningKeyState.SIGNING_KEY_STATE_ACTIVE]
    assert active == [new]
    # The answer that was lost is had by the same request, from whoever is there.
    assert server.call(keys.RotateSigningKey, request).name == new
    again = server.call(keys.ListSigningKeys, ListSigningKeysRequest()).signing_keys
    assert len(again) == len(listed)
    key = server.token_key
    assert not list(key.parent.glob(f"{key.stem}.*.pem"))
