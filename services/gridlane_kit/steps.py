"""The steps that every call goes through, whether it comes over the wire or from a room next door.

Responsible for: permission, validation, what becomes of an exception, and what is left behind when
a call ends (metrics, span, log line). Their order over the wire is `registration`'s, between rooms
`peers`'.
"""

import asyncio
import time
from collections.abc import Callable
from time import perf_counter
from typing import Any

import grpc
from google.protobuf.message import Message

from gridlane_kit import errors
from gridlane_kit.call import OPEN, Call
from gridlane_kit.clock import now_us
from gridlane_kit.decision import Decision, Reason, decide
from gridlane_kit.errors import ErrorReason, GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.logs import logger
from gridlane_kit.plans import MethodPlan
from gridlane_kit.policy import PolicyHolder
from gridlane_kit.telemetry import SERVER_KIND, FinishedSpan, Telemetry
from gridlane_kit.validation import validate


class Steps:
    """The steps, bound to what they need of this process."""

    def __init__(self, policy: PolicyHolder, telemetry: Telemetry, *, log_calls: bool) -> None:
        self.policy = policy
        self.telemetry = telemetry
        self._log = logger("calls")
        self._log_calls = log_calls

    def permit(self, plan: MethodPlan, principal: Principal) -> Decision:
        """Makes the coarse decision.

        Raises:
            GridlaneError: CALLER_VETOED, PERMISSION_DENIED, SCOPE_TOO_NARROW.
        """
        permission = plan.rule.permission or ""
        decision = decide(principal, permission, self.policy.current, now_us())
        if not decision.allowed:
            raise denial(decision, permission)
        return decision

    def checked_handler(
        self, plan: MethodPlan, call: Call, request: Message | None
    ) -> Callable[..., Any]:
        """Validates a request (None: requests stream and are validated one by one).

        Returns the method's handler.

        Raises:
            GridlaneError: NOT_IMPLEMENTED, INVALID_FIELDS.
        """
        if plan.handler is None:
            raise errors.not_implemented(plan.name)
        if request is not None:
            self.check(plan, call, request)
        return plan.handler

    def check(self, plan: MethodPlan, call: Call, message: Message) -> None:
        """Validates a request, and takes note of its request id for the log.

        Raises:
            GridlaneError: INVALID_FIELDS.
        """
        if plan.validated:
            validate(message)
        if plan.has_request_id:
            call.request_id = message.request_id  # type: ignore[attr-defined]

    def answerable(self, plan: MethodPlan, call: Call, raised: BaseException) -> GridlaneError:
        """Returns the error that the caller gets for an exception; logs what nobody may see.

        Raises:
            BaseException: `raised` itself, when it is not this call's to answer: a cancellation
                from outside (the caller left, the server stops), the end of the process.
        """
        if isinstance(raised, GridlaneError):
            if plan.denied is not None and _is_denial(call, raised):
                plan.denied(plan.rule.permission or "", call, raised)
            return raised
        if isinstance(raised, asyncio.CancelledError):
            task = asyncio.current_task()
            if call.cut is not None:
                if task is not None:
                    task.uncancel()
                return call.cut
            if task is not None and task.cancelling():
                raise raised
        elif not isinstance(raised, Exception):
            raise raised
        self._log.error("call failed with an unexpected error", rpc=plan.name, exc_info=raised)
        return errors.internal(call.trace.trace_id_hex)

    def ended(self, plan: MethodPlan, call: Call, code: str, begun: float) -> None:
        """Counts an ended call, passes its span on, and writes its line where that is wanted."""
        seconds = perf_counter() - begun
        plan.stats.ended(code, seconds)
        if call.trace.sampled:
            self._span(plan, call, code, seconds)
        if self._log_calls:
            self._log.info("call", code=code, milliseconds=round(seconds * 1000, 3))

    def _span(self, plan: MethodPlan, call: Call, code: str, seconds: float) -> None:
        end_ns = time.time_ns()
        attributes = plan.span_attributes.copy()
        attributes["rpc.grpc.status"] = code
        if call.attributes is not None:
            attributes.update(call.attributes)
        self.telemetry.ended(
            FinishedSpan(
                call.trace.trace_id,
                call.trace.span_id,
                call.trace.parent_id,
                plan.name,
                SERVER_KIND,
                end_ns - int(seconds * 1e9),
                end_ns,
                plan.service,
                attributes,
                "" if code == "OK" else code,
            )
        )


def _is_denial(call: Call, error: GridlaneError) -> bool:
    """Whether a caller who is known was denied before any decision let it through."""
    is_known = bool(call.principal.issuer)
    return is_known and call.decision is OPEN and error.code is grpc.StatusCode.PERMISSION_DENIED


def denial(decision: Decision, permission: str) -> GridlaneError:
    """Returns the error for a decision that denies."""
    if decision.reason is Reason.CALLER_VETOED:
        return errors.caller_vetoed()
    if decision.reason is Reason.SCOPE_TOO_NARROW:
        return errors.scope_too_narrow(permission, " or ".join(sorted(decision.scopes_needed)))
    return errors.permission_denied(permission)


def out_of_time() -> GridlaneError:
    """The error for work that was under way when the deadline passed: its outcome is open."""
    return GridlaneError(
        ErrorReason.DEADLINE_EXCEEDED,
        "the deadline passed while the call was served: ask for the resource, or repeat the call"
        " with the same request_id",
    )
