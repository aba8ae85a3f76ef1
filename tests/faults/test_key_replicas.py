"""Two processes of Authorization on one database and one folder of keys: one dies in the middle of
replacing the key that is known to others, and the other one ends it."""

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import grpc
import pytest
from endtoend.test_token_revocation import METHODS, caller, until_refused
from faults import cycles
from faults.split_cycles import ENVIRONMENT
from postgresql import PostgresqlServer
from split import SplitServer
from support import CALL_SECONDS, ServerProcess, bearer, lent

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


@pytest.fixture(scope="module")
def running(
    postgresql_server: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[SplitServer]:
    folder = tmp_path_factory.mktemp("key-replicas")
    server = SplitServer(folder / "server", postgresql_server.new_databases(), ENVIRONMENT)
    yield server
    server.close()


@pytest.fixture
def split_server(running: SplitServer) -> Iterator[SplitServer]:
    """Five processes; what a test ended is started again for the next."""
    with lent(running):
        yield running


@pytest.fixture
def replica(split_server: SplitServer, tmp_path: Path) -> Iterator[ServerProcess]:
    """A second process of Authorization, on ports of its own; not yet started."""
    ports = ("--port", "0", "--health-port", "0")
    process = ServerProcess(
        tmp_path / "replica",
        ["authorization", "--config", split_server.config, *ports],
        ENVIRONMENT,
    )
    yield process
    process.close()
    print(process.output)


def eventually(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + CALL_SECONDS
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


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
    split_server: SplitServer, replica: ServerProcess, failpoint: str
) -> None:
    server = split_server
    replica.start({"GRIDLANE_FAILPOINTS": failpoint})
    token = signed(server, "eve")
    calls = [caller(server, path, token) for path in METHODS.values()]
    assert [call() for call in calls] == ["OK"] * len(calls)
    request = RotateSigningKeyRequest(revoke_present=True, request_id=uuid7(), reason="lost")
    ca = Path(server.client_environment["GRIDLANE_CA"]).read_bytes()
    with grpc.secure_channel(replica.address, grpc.ssl_channel_credentials(ca)) as channel:
        rotate: Any = SigningKeyServiceStub(channel).RotateSigningKey
        with pytest.raises(grpc.RpcError):
            rotate(request, metadata=bearer(server.token), timeout=CALL_SECONDS)
    assert replica.wait_dead() == cycles.KILLED
    for call in calls:
        assert until_refused(call) < ENDED_S
    keys = SigningKeyServiceStub(server.channel)
    new = f"signingKeys/{read_key(server.token_key).kid}"
    eventually(lambda: caller(server, METHODS["authorization"], server.token)() == "OK")
    listed = server.call(keys.ListSigningKeys, ListSigningKeysRequest()).signing_keys
    active = [k.name for k in listed if k.state == SigningKeyState.SIGNING_KEY_STATE_ACTIVE]
    assert active == [new]
    # The answer that was lost is had by the same request, from whoever is there.
    assert server.call(keys.RotateSigningKey, request).name == new
    assert len(server.call(keys.ListSigningKeys, ListSigningKeysRequest()).signing_keys) == len(
        listed
    )
    key = server.token_key
    assert not list(key.parent.glob(f"{key.stem}.*.pem"))
