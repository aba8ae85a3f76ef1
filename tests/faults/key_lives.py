"""A life of the signing key: a new one waits, signs, and is revoked when it is known to others.

Responsible for what an administrator does; lives of tasks are `lives`'.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from faults.lives import Life, until
from google.protobuf.duration_pb2 import Duration
from support import Deployment

from gridlane.authorization.v1 import (
    audit_service_pb2,
    audit_service_pb2_grpc,
    authorization_service_pb2,
    authorization_service_pb2_grpc,
    signing_key_service_pb2,
    signing_key_service_pb2_grpc,
)
from gridlane.authorization.v1.signing_key_pb2 import SigningKey, SigningKeyState
from gridlane.ids import uuid7
from gridlane_authorization.key_files import read_key
from gridlane_authorization.settings import AuthorizationSettings
from gridlane_authorization.tokens import read_signer

_ACTIVE = SigningKeyState.SIGNING_KEY_STATE_ACTIVE
_RETIRED = SigningKeyState.SIGNING_KEY_STATE_RETIRED
_REVOKED = SigningKeyState.SIGNING_KEY_STATE_REVOKED
_WAIT_S = 1


class KeyLife(Life):
    """A key is published, begins to sign, and is revoked; each call is sent again after a start."""

    def __init__(self, server: Deployment, folder: Path) -> None:
        super().__init__(server, folder)
        self._ids = {step: uuid7() for step in ("publish", "revoke")}
        self._made: dict[str, str] = {}
        self._before: str = ""
        self._token = ""
        self._step = 0

    def go_on(self) -> None:
        for step in self._steps()[self._step :]:
            step()
            self._step += 1

    def check(self) -> None:
        waited, last = self._made["publish"], self._made["revoke"]
        found = {key.name: key.state for key in self._listed()}
        assert (found[last], found[waited], found[self._before]) == (_ACTIVE, _REVOKED, _RETIRED)
        assert list(found.values()).count(_ACTIVE) == 1
        for name in (waited, last):
            # What was committed, and not answered, was not done again.
            assert len(self._entries_on(name)) == 1
        key = self.server.token_key
        assert last == f"signingKeys/{read_key(key).kid}"
        assert not list(key.parent.glob(f"{key.stem}.*.pem"))
        published = {f"signingKeys/{jwk['kid']}" for jwk in self._jwks()["keys"]}
        assert published == {name for name, state in found.items() if state != _REVOKED}
        assert not self._is_good(self._token)

    def _steps(self) -> Sequence[Callable[[], None]]:
        return (self._begin, self._publish, self._await, self._be_known, self._revoke, self._end)

    def _begin(self) -> None:
        (self._before,) = (key.name for key in self._listed() if key.state == _ACTIVE)

    def _publish(self) -> None:
        self._made["publish"] = self._rotated("publish", publish_for=Duration(seconds=_WAIT_S))

    def _await(self) -> None:
        until(lambda: self._state(self._made["publish"]) == _ACTIVE, "the new key's beginning")
        until(self._in_its_file, "the new key in its file")

    def _be_known(self) -> None:
        """Somebody else has the key, and signs a token with it."""
        settings = AuthorizationSettings()
        signer = read_signer(self.server.token_key, settings.issuer, settings.audience)
        self._token = signer.sign_user("thief", lifetime_s=3600)
        assert self._is_good(self._token)

    def _revoke(self) -> None:
        self._made["revoke"] = self._rotated("revoke", revoke_present=True)

    def _end(self) -> None:
        # The file with the first user's token follows; the thief's is refused within a second.
        until(lambda: not self._is_good(self._token), "the end of the revoked key's tokens")
        until(self._knows_me, "a token of the new key")

    def _rotated(self, step: str, **fields: Any) -> str:
        request = signing_key_service_pb2.RotateSigningKeyRequest(
            request_id=self._ids[step], reason="a life", **fields
        )
        until(self._knows_me, "a token that is good")
        made: SigningKey = self._call(self._keys.RotateSigningKey, request)
        return made.name

    def _in_its_file(self) -> bool:
        name = f"signingKeys/{read_key(self.server.token_key).kid}"
        return self._state(self._made["publish"]) == _ACTIVE and name == self._made["publish"]

    def _knows_me(self) -> bool:
        try:
            self._listed()
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise
        return True

    def _is_good(self, token: str) -> bool:
        me = authorization_service_pb2_grpc.AuthorizationServiceStub(self.server.channel)
        try:
            self.server.call(me.WhoAmI, authorization_service_pb2.WhoAmIRequest(), token=token)
        except grpc.RpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                return False
            raise
        return True

    def _state(self, name: str) -> int:
        return next(key.state for key in self._listed() if key.name == name)

    def _listed(self) -> Sequence[SigningKey]:
        request = signing_key_service_pb2.ListSigningKeysRequest(page_size=1000)
        keys: Sequence[SigningKey] = self._call(self._keys.ListSigningKeys, request).signing_keys
        return keys

    def _entries_on(self, resource: str) -> Sequence[Any]:
        stub = audit_service_pb2_grpc.AuditServiceStub(self.server.channel)
        request = audit_service_pb2.ListAuditEntriesRequest(filter=f'resource = "{resource}"')
        entries: Sequence[Any] = self._call(stub.ListAuditEntries, request).audit_entries
        return entries

    def _jwks(self) -> Mapping[str, Any]:
        # Beside the key where one process serves all, one folder up where there are five.
        folder = self.server.token_key.parent
        files = [folder / "jwks.json", folder.parent / "jwks.json"]
        found: Mapping[str, Any] = json.loads(next(f for f in files if f.exists()).read_bytes())
        return found

    @property
    def _keys(self) -> signing_key_service_pb2_grpc.SigningKeyServiceStub:
        return signing_key_service_pb2_grpc.SigningKeyServiceStub(self.server.channel)

    def _call(self, method: Any, request: Any) -> Any:
        return self.server.call(method, request)
