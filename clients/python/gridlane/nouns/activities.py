"""The shares of activities within a virtual organisation: `client.activities`."""

from __future__ import annotations

from collections.abc import Mapping

from google.protobuf.field_mask_pb2 import FieldMask

from gridlane.calls import Timeout
from gridlane.modes import Mode, verb
from gridlane.nouns.noun import ClientNoun
from gridlane.transfer.v1 import activity_service_pb2 as rpc
from gridlane.transfer.v1.activity_pb2 import ActivityShare, ActivityShares
from gridlane.transport import Method

_SERVICE = "gridlane.transfer.v1.ActivityService"
GET = Method(_SERVICE, "GetActivityShares", rpc.GetActivitySharesRequest, ActivityShares)
UPDATE = Method(_SERVICE, "UpdateActivityShares", rpc.UpdateActivitySharesRequest, ActivityShares)


class Activities(ClientNoun[Mode]):
    """How the places of a VO on every channel are divided among its activities."""

    @verb
    async def get(self, vo: str, *, timeout: Timeout = None) -> ActivityShares:
        """The shares of a VO, with what is in each now.

        Parameters:
            vo: its bare name.
            timeout: see the package.

        Raises:
            NotFound: there is no such VO that the caller may see.
        """
        request = rpc.GetActivitySharesRequest(name=f"vos/{vo}/activityShares")
        return await self._calls.unary(GET, request, timeout)

    @verb
    async def update(
        self,
        vo: str,
        *,
        weights: Mapping[str, int] | None = None,
        active: bool | None = None,
        reason: str = "",
        revision: int = 0,
        timeout: Timeout = None,
    ) -> ActivityShares:
        """Change the shares of a VO.

        Parameters:
            vo: its bare name.
            weights: all of them, by activity; empty: it does not divide. None leaves them.
            active: whether they are in force; None leaves that.
            reason: why; kept in the audit.
            revision: theirs, as they were read: later ones are not changed. Such a call is made
                once.
            timeout: see the package.

        Raises:
            NotFound: there is no such VO that the caller may see.
            PermissionDenied: the caller does not manage it.
            Aborted: they have another revision.
        """
        given = ActivityShares(name=f"vos/{vo}/activityShares", active=active)
        paths = [] if active is None else ["active"]
        if weights is not None:
            paths.append("activities")
            given.activities.extend(
                ActivityShare(activity=activity, weight=weight)
                for activity, weight in weights.items()
            )
        request = rpc.UpdateActivitySharesRequest(
            activity_shares=given,
            update_mask=FieldMask(paths=paths),
            reason=reason,
            revision=revision,
        )
        return await self._calls.unary(UPDATE, request, timeout, repeat=not revision)
