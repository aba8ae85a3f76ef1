"""The call: everything that a handler knows of it besides the request.

Responsible for what passes from the pipeline to handlers and from there to peers: principal,
decision, deadline and trace. Not for making any of them (`registration`), and not for requests.
"""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

from gridlane_kit import errors
from gridlane_kit.decision import EVERYTHING, Decision, Visibility
from gridlane_kit.errors import GridlaneError
from gridlane_kit.identity import Principal
from gridlane_kit.telemetry import (
    JOB_ID,
    AttributeValue,
    Telemetry,
    TraceContext,
    parse_traceparent,
)

CURRENT: Final[ContextVar["Caller | None"]] = ContextVar("gridlane_call", default=None)
"""The call that this task serves; logs take the trace id from it. Set and reset by the pipeline."""

OPEN: Final = Decision(True, "open to everybody", EVERYTHING, 0)
"""The decision on methods that need no identity (health)."""


class Caller:
    """Whoever calls a peer: the principal, how long there is, and the span it is a part of.

    `deadline` is a time of the event loop's clock (seconds), None for no end.
    """

    __slots__ = ("deadline", "principal", "trace")

    def __init__(self, principal: Principal, deadline: float | None, trace: TraceContext) -> None:
        self.principal = principal
        self.deadline = deadline
        self.trace = trace

    def remaining(self) -> float | None:
        """Returns the seconds left until the deadline, at least 0; None when there is none."""
        if self.deadline is None:
            return None
        return max(0.0, self.deadline - asyncio.get_running_loop().time())

    @property
    def traceparent(self) -> str:
        """The W3C trace context, to be stored with work that is done later (see `later`)."""
        return self.trace.traceparent


class Call(Caller):
    """One call of one method, as its handler sees it.

    `method` is "package.Service/Method". `decision` says how far the caller's right reaches; a
    stream reads it anew for every page, since it changes with the policy. `resume_token` is the
    stream's own: it is told to the caller when the stream is cut. `request_id` is the request's,
    for the log. `peer` tells the network address from which the call came; empty within a process.
    """

    __slots__ = ("attributes", "cut", "decision", "method", "peer", "request_id", "resume_token")

    def __init__(
        self,
        principal: Principal,
        deadline: float | None,
        trace: TraceContext,
        *,
        method: str,
        decision: Decision = OPEN,
        peer: Callable[[], str] = str,
    ) -> None:
        super().__init__(principal, deadline, trace)
        self.peer = peer
        self.method = method
        self.decision = decision
        self.request_id = ""
        self.resume_token = ""
        self.attributes: dict[str, AttributeValue] | None = None
        self.cut: GridlaneError | None = None
        """Why the pipeline ended the call before its handler did."""

    @property
    def visibility(self) -> Visibility:
        """What of the collection this call may touch; belongs into every WHERE clause."""
        return self.decision.visibility

    def about_job(self, job_id: str) -> None:
        """Ties the call's span to a job."""
        self.annotate(JOB_ID, job_id)

    def annotate(self, key: str, value: AttributeValue) -> None:
        """Adds an attribute to the call's span. Never a secret."""
        if self.attributes is None:
            self.attributes = {}
        self.attributes[key] = value

    def choose_vo(self, requested: str) -> str:
        """Returns the VO that a call which creates something is for.

        Parameters:
            requested: the request's field `vo`; may be empty when the caller belongs to exactly
                one.

        Raises:
            GridlaneError: VO_AMBIGUOUS (several; they are listed), PERMISSION_DENIED (none, or one
                that does not exist or for which the caller's role does not count: a caller does not
                learn which).
        """
        vo = requested
        if not vo:
            if len(self.principal.vos) > 1:
                raise errors.vo_ambiguous(self.principal.vos)
            vo = next(iter(self.principal.vos), "")
        counts = self.visibility.everything or vo in self.visibility.vos
        if not counts or vo not in self.decision.existing_vos:
            raise errors.permission_denied(
                self.decision.permission,
                vo,
                f"there is no VO {vo!r}, or your roles do not let you do this for it"
                if vo
                else "you belong to no VO: ask an administrator for one",
            )
        return vo


@contextmanager
def later(
    telemetry: Telemetry,
    name: str,
    principal: Principal,
    *,
    timeout_s: float | None = 30.0,
    submitted: str = "",
    job_id: str = "",
) -> Iterator[Caller]:
    """Runs a step that is taken later than the call which asked for it, for example by a
    reconciler.

    The step is a trace of its own, linked to the submitting span, with a deadline of its own. Peers
    decide again on the stored principal under the policy of the day.

    Parameters:
        name: the span's name, "workload.stage_in".
        principal: the stored one, or `service_principal(...)` for a service that acts for itself.
        timeout_s: seconds that the step's calls have together; None for no end.
        submitted: `traceparent` stored when the work was asked for.
        job_id: goes onto the span.
    """
    origin = parse_traceparent(submitted) if submitted else None
    deadline = None if timeout_s is None else asyncio.get_running_loop().time() + timeout_s
    attributes: dict[str, AttributeValue] = {JOB_ID: job_id} if job_id else {}
    links = () if origin is None else (origin,)
    with telemetry.root_span(name, attributes, links=links) as span:
        caller = Caller(principal, deadline, span.trace)
        token = CURRENT.set(caller)
        try:
            yield caller
        finally:
            CURRENT.reset(token)
