"""Keys with which Gridlane signs its own tokens: `client.keys`."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import timedelta

from gridlane.authorization.v1 import signing_key_service_pb2 as rpc
from gridlane.authorization.v1.signing_key_pb2 import SigningKey
from gridlane.calls import Timeout
from gridlane.ids import uuid7
from gridlane.modes import Mode, stream, verb
from gridlane.nouns.noun import ClientNoun, duration
from gridlane.transport import Method

_SERVICE = "gridlane.authorization.v1.SigningKeyService"
LIST = Method(_SERVICE, "ListSigningKeys", rpc.ListSigningKeysRequest, rpc.ListSigningKeysResponse)
ROTATE = Method(_SERVICE, "RotateSigningKey", rpc.RotateSigningKeyRequest, SigningKey)


class Keys(ClientNoun[Mode]):
    """Their public halves, and where each is in its life."""

    @stream
    def list(
        self, *, limit: int | None = None, timeout: Timeout = None
    ) -> AsyncGenerator[SigningKey]:
        """The keys, newest first; those that sign no more until nobody needs them.

        Parameters:
            limit: at most this many; None for all.
            timeout: for each page of 1000.
        """
        request = rpc.ListSigningKeysRequest()
        return self._listed(LIST, request, lambda page: page.signing_keys, limit, timeout)

    @verb
    async def rotate(
        self,
        *,
        publish_for: timedelta | None = None,
        revoke_present: bool = False,
        reason: str = "",
        request_id: str | None = None,
        timeout: Timeout = None,
    ) -> SigningKey:
        """Make a new key, which takes the place of the present one; for administrators.

        Parameters:
            publish_for: for how long others can learn the new key before it signs; None: it signs
                at once. At most 30 days.
            revoke_present: the present key is known to others: no token that it signed is accepted
                any more, within a second, the caller's own among them.
            reason: why; kept in the audit.
            request_id: a UUIDv7; the same id with the same content answers the same key, for 30
                days. None: a new one.
            timeout: see the package.

        Raises:
            FailedPrecondition: a key waits already, or the server does not keep its keys itself.
            PermissionDenied: the caller is no administrator.
        """
        request = rpc.RotateSigningKeyRequest(
            publish_for=duration(publish_for),
            revoke_present=revoke_present,
            reason=reason,
            request_id=request_id or uuid7(),
        )
        return await self._calls.unary(ROTATE, request, timeout)
