"""Trace context and spans.

Responsible for reading and writing W3C `traceparent`, for the sampling decision, and for handing
ended spans to whoever keeps them: Reporting's ring in the embedded server, an OTLP collector where
one is configured (OpenTelemetry's exporter and batching). Not for what is traced: the pipeline
opens a span a call, services open inner ones.

The context is ours instead of the SDK's because of what it costs: every call has one, sampled or
not.
"""

import logging
import random
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_log = logging.getLogger(__name__)
AttributeValue = str | int | float | bool
JOB_ID: Final = "gridlane.job.id"
"""The attribute that ties every span to the job it is about."""

_TRACEPARENT = re.compile(r"00-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


class TraceContext:
    """The place of one span in a trace. Ids are integers of 128 and 64 bits; 0 = no parent."""

    __slots__ = ("parent_id", "sampled", "span_id", "trace_id")

    def __init__(self, trace_id: int, span_id: int, parent_id: int, sampled: bool) -> None:
        self.trace_id = trace_id
        self.span_id = span_id
        self.parent_id = parent_id
        self.sampled = sampled

    @property
    def traceparent(self) -> str:
        """The W3C form, to be sent to a callee or stored with work that is done later."""
        return f"00-{self.trace_id:032x}-{self.span_id:016x}-{'01' if self.sampled else '00'}"

    @property
    def trace_id_hex(self) -> str:
        """The trace id as people and other systems write it."""
        return f"{self.trace_id:032x}"

    def child(self) -> "TraceContext":
        """Returns the context of a new span below this one."""
        return TraceContext(self.trace_id, _span_id(), self.span_id, self.sampled)


@dataclass(slots=True)
class FinishedSpan:
    """An ended span. Times are nanoseconds since the epoch (UTC); `error` is empty when all went
    well.

    `kind` is OTLP's: 1 internal, 2 server, 3 client. `links` are (trace id, span id) of spans that
    caused this one without being its parent.
    """

    trace_id: int
    span_id: int
    parent_id: int
    name: str
    kind: int
    start_ns: int
    end_ns: int
    service: str
    attributes: dict[str, AttributeValue]
    error: str = ""
    links: tuple[tuple[int, int], ...] = ()


INTERNAL_KIND: Final = 1
SERVER_KIND: Final = 2
CLIENT_KIND: Final = 3


@dataclass(slots=True)
class OpenSpan:
    """A span that is under way: its context, and attributes that may still be added."""

    trace: TraceContext
    attributes: dict[str, AttributeValue] = field(default_factory=dict)


def parse_traceparent(text: str) -> TraceContext | None:
    """Reads the context of the caller's span; None when the text is no valid `traceparent`."""
    match = _TRACEPARENT.fullmatch(text)
    if match is None:
        return None
    trace_id, span_id = int(match[1], 16), int(match[2], 16)
    if trace_id == 0 or span_id == 0:
        return None
    return TraceContext(trace_id, span_id, 0, bool(int(match[3], 16) & 1))


class Telemetry:
    """Makes contexts and passes ended spans on.

    Parameters:
        service: `service.name` of the spans.
        ratio: the share of traces that begin here which is sampled, 0 to 1. Callers' decisions are
            kept.
        sinks: called with every ended sampled span, in the thread that ended it; must be quick.
        otlp_endpoint: "host:port" of an OTLP/gRPC collector; empty for none.
    """

    def __init__(
        self,
        service: str,
        *,
        ratio: float = 1.0,
        sinks: Sequence[Callable[[FinishedSpan], None]] = (),
        otlp_endpoint: str = "",
    ) -> None:
        self.service = service
        self._ratio = ratio
        self._sinks = list(sinks)
        self._exporter = OtlpExport(service, otlp_endpoint) if otlp_endpoint else None
        if self._exporter is not None:
            self._sinks.append(self._exporter.accept)

    def add_sink(self, sink: Callable[[FinishedSpan], None]) -> None:
        """Has every sampled span that ends from now on passed to `sink`."""
        self._sinks.append(sink)

    def root(self) -> TraceContext:
        """Returns the context of a span that begins a trace, with the sampling decision made."""
        sampled = self._ratio >= 1.0 or random.random() < self._ratio  # noqa: S311 - no secret
        return TraceContext(_trace_id(), _span_id(), 0, sampled)

    def continued(self, traceparent: str) -> TraceContext:
        """Returns the context of a span below the caller's; a root when it sent nothing usable."""
        parent = parse_traceparent(traceparent) if traceparent else None
        return self.root() if parent is None else parent.child()

    def ended(self, span: FinishedSpan) -> None:
        """Passes an ended span on. Call it for sampled spans alone."""
        for sink in self._sinks:
            try:
                sink(span)
            except Exception:  # a call that went well must not fail for its span
                _log.exception("a sink refused a span")

    @contextmanager
    def span(
        self,
        parent: TraceContext,
        name: str,
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        links: Sequence[TraceContext] = (),
    ) -> Iterator[OpenSpan]:
        """Runs a block as a span below `parent`; an exception marks it as failed with its type."""
        yield from self._run(parent.child(), name, attributes, links)

    @contextmanager
    def root_span(
        self,
        name: str,
        attributes: Mapping[str, AttributeValue] | None = None,
        *,
        links: Sequence[TraceContext] = (),
    ) -> Iterator[OpenSpan]:
        """Runs a block as a span that begins a trace, linked to the spans that caused it."""
        yield from self._run(self.root(), name, attributes, links)

    def _run(
        self,
        trace: TraceContext,
        name: str,
        attributes: Mapping[str, AttributeValue] | None,
        links: Sequence[TraceContext],
    ) -> Iterator[OpenSpan]:
        span = OpenSpan(trace, dict(attributes or {}))
        start_ns = time.time_ns()
        error = ""
        try:
            yield span
        except BaseException as raised:
            error = type(raised).__name__
            raise
        finally:
            if trace.sampled:
                self.ended(
                    FinishedSpan(
                        trace_id=trace.trace_id,
                        span_id=trace.span_id,
                        parent_id=trace.parent_id,
                        name=name,
                        kind=INTERNAL_KIND,
                        start_ns=start_ns,
                        end_ns=time.time_ns(),
                        service=self.service,
                        attributes=span.attributes,
                        error=error,
                        links=tuple((link.trace_id, link.span_id) for link in links),
                    )
                )

    def close(self) -> None:
        """Sends what an exporter still holds; waits at most some seconds."""
        if self._exporter is not None:
            self._exporter.close()


class OtlpExport:
    """Sends spans to an OTLP/gRPC collector, in batches, from OpenTelemetry's own thread."""

    def __init__(self, service: str, endpoint: str) -> None:
        # Imported here: they take a fifth of a second that a server without a collector need not
        # pay.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        self._resource = Resource.create({"service.name": service})
        self._batches = BatchSpanProcessor(OTLPSpanExporter(endpoint=endpoint, insecure=True))

    def accept(self, span: FinishedSpan) -> None:
        """Queues a span; a full queue drops it."""
        self._batches.on_end(self._readable(span))

    def close(self) -> None:
        """Sends what is queued."""
        self._batches.shutdown()  # type: ignore[no-untyped-call]

    def _readable(self, span: FinishedSpan) -> "ReadableSpan":
        from opentelemetry.sdk.trace import ReadableSpan
        from opentelemetry.trace import Link, SpanContext, SpanKind, Status, StatusCode, TraceFlags

        def context(trace_id: int, span_id: int, remote: bool) -> SpanContext:
            return SpanContext(trace_id, span_id, remote, TraceFlags(TraceFlags.SAMPLED))

        kinds = {SERVER_KIND: SpanKind.SERVER, CLIENT_KIND: SpanKind.CLIENT}
        return ReadableSpan(
            name=span.name,
            context=context(span.trace_id, span.span_id, False),
            parent=context(span.trace_id, span.parent_id, True) if span.parent_id else None,
            resource=self._resource,
            attributes=span.attributes,
            links=[Link(context(trace_id, span_id, True)) for trace_id, span_id in span.links],
            kind=kinds.get(span.kind, SpanKind.INTERNAL),
            status=Status(StatusCode.ERROR, span.error) if span.error else Status(StatusCode.UNSET),
            start_time=span.start_ns,
            end_time=span.end_ns,
        )


def _trace_id() -> int:
    return random.getrandbits(128) or 1


def _span_id() -> int:
    return random.getrandbits(64) or 1
