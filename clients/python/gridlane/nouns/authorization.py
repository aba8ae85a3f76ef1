"""Who the caller is, and who may do what: `client.authorization`."""

from __future__ import annotations

from collections.abc import Iterable

from gridlane.authorization.v1 import permission_pb2 as rpc
from gridlane.authorization.v1.authorization_service_pb2 import WhoAmIResponse
from gridlane.calls import Timeout
from gridlane.errors import GridlaneError, error_from_status
from gridlane.modes import Mode, verb
from gridlane.nouns.noun import ClientNoun
from gridlane.nouns.service import WHO_AM_I, who_am_i
from gridlane.transport import Method
from gridlane.type.v1.principal_pb2 import Principal

_SERVICE = WHO_AM_I.service
CHECK = Method(_SERVICE, "CheckPermission", rpc.CheckPermissionRequest, rpc.CheckPermissionResponse)
BATCH_CHECK = Method(
    _SERVICE,
    "BatchCheckPermissions",
    rpc.BatchCheckPermissionsRequest,
    rpc.BatchCheckPermissionsResponse,
)

#: For each question, in order: the answer, or why there is none.
PermissionResults = list[rpc.CheckPermissionResponse | GridlaneError]

_BATCH = 1000


class Authorization(ClientNoun[Mode]):
    """Identities and permissions, as the policy has them now."""

    @verb
    async def whoami(self, *, timeout: Timeout = None) -> WhoAmIResponse:
        """Who the caller is to Gridlane, its VOs and roles, and until when its token is good.

        Raises:
            Unauthenticated: there is no token, or it is not acceptable.
        """
        return await who_am_i(self._calls, timeout)

    @verb
    async def check(
        self,
        permission: str,
        target: rpc.PermissionTarget | None = None,
        *,
        principal: Principal | None = None,
        minimum_revision: int = 0,
        timeout: Timeout = None,
    ) -> rpc.CheckPermissionResponse:
        """Whether somebody may do something, why, and what is missing; a no is an answer.

        Parameters:
            permission: "transfer.jobs.cancel"; docs/reference/permissions.md has them all.
            target: what is acted upon, as far as it is known; None: whether there is anything at
                all.
            principal: whose right is asked for: `issuer`, `subject`, and the `vos` and `groups`
                that its token would say. None: the caller.
            minimum_revision: the policy must have come so far, for example to the `revision` of a
                binding just made; at most 5 s are waited.
            timeout: see the package.

        Raises:
            InvalidArgument: there is no such permission.
            PermissionDenied: the caller may not ask about the principal, whoever that is.
            Unavailable: the policy did not come so far in time.
        """
        request = rpc.CheckPermissionRequest(
            permission=permission,
            target=target,
            principal=principal,
            minimum_revision=minimum_revision,
        )
        return await self._calls.unary(CHECK, request, timeout)

    @verb
    async def check_many(
        self, questions: Iterable[rpc.CheckPermissionRequest], *, timeout: Timeout = None
    ) -> PermissionResults:
        """Many such questions, 1000 a call; those of a call are answered under one revision.

        Parameters:
            questions: any number.
            timeout: for each call of 1000.

        Returns:
            One for each question, in order: the answer, or the error that refused it (returned, not
                raised).
        """
        asked = list(questions)
        results: PermissionResults = []
        for start in range(0, len(asked), _BATCH):
            batch = rpc.BatchCheckPermissionsRequest(requests=asked[start : start + _BATCH])
            answer = await self._calls.unary(BATCH_CHECK, batch, timeout)
            results += map(_answer_or_error, answer.results)
        return results


def _answer_or_error(
    result: rpc.PermissionResult,
) -> rpc.CheckPermissionResponse | GridlaneError:
    if result.WhichOneof("result") == "status":
        return error_from_status(result.status)
    return result.permission
