"""The names of all metrics, and what counts them.

Responsible for every metric name of Gridlane and for the counters that the pipeline feeds; services
give it functions that read their queues and lags. Exposed in Prometheus' format over HTTP where a
port is configured.

Calls are counted in plain integers and turned into Prometheus' families only when somebody scrapes:
the library's own histograms cost several microseconds a call.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from gridlane_kit.admission import Admission

if TYPE_CHECKING:
    import threading
    from wsgiref.simple_server import WSGIServer

CALLS: Final = "gridlane_calls"
CALL_SECONDS: Final = "gridlane_call_seconds"
MESSAGES_SENT: Final = "gridlane_stream_messages_sent"
ADMISSION_IN_FLIGHT: Final = "gridlane_admission_in_flight"
ADMISSION_REFUSED: Final = "gridlane_admission_refused"
LOOP_LAG_SECONDS: Final = "gridlane_event_loop_lag_seconds"
GROUP_COMMIT_QUEUE: Final = "gridlane_group_commit_queue"
FEED_LAG: Final = "gridlane_feed_lag_events"
FEED_LAG_SECONDS: Final = "gridlane_feed_lag_seconds"
QUARANTINED: Final = "gridlane_quarantined_events"
OLDEST_DUE_SECONDS: Final = "gridlane_oldest_due_seconds"
POLICY_STALENESS_SECONDS: Final = "gridlane_policy_staleness_seconds"

BUCKETS_S: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)

_GAUGES: Final = {
    LOOP_LAG_SECONDS: "How late the event loop ran its last timer",
    GROUP_COMMIT_QUEUE: "Writes that wait for the next commit",
    FEED_LAG: "Events that a follower has not taken yet",
    FEED_LAG_SECONDS: "How long after it happened the last event was taken by a follower",
    QUARANTINED: "Events that a follower could not take and put aside",
    OLDEST_DUE_SECONDS: "Age of the oldest work that is due",
    POLICY_STALENESS_SECONDS: "How long ago the policy in force was known to be the newest",
}


class MethodStats:
    """The counts of one method: ended calls by code, their durations, messages sent."""

    __slots__ = ("buckets", "by_code", "method", "seconds", "sent")

    def __init__(self, method: str) -> None:
        self.method = method
        self.by_code: dict[str, int] = {}
        self.buckets = [0] * (len(BUCKETS_S) + 1)
        self.seconds = 0.0
        self.sent = 0

    def ended(self, code: str, seconds: float) -> None:
        """Counts a call that ended with this gRPC code after so many seconds."""
        self.by_code[code] = self.by_code.get(code, 0) + 1
        self.buckets[bisect_left(BUCKETS_S, seconds)] += 1
        self.seconds += seconds


class HttpEndpoint(Protocol):
    """The listening server of `Metrics.expose`."""

    port: int

    def close(self) -> None:
        """Stops listening."""


class Metrics:
    """All instruments of one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(self)
        self._methods: dict[str, MethodStats] = {}
        self._admission: Admission | None = None
        self._readers: dict[tuple[str, str], Callable[[], float]] = {}

    def method(self, name: str) -> MethodStats:
        """Returns the counts of a method ("package.Service/Method")."""
        return self._methods.setdefault(name, MethodStats(name))

    def watch_admission(self, admission: Admission) -> None:
        """Reports the gates of `admission` from now on."""
        self._admission = admission

    def watch(self, name: str, label: str, read: Callable[[], float]) -> None:
        """Reports what `read` answers at each scrape.

        Parameters:
            name: one of this module's gauges, for example `GROUP_COMMIT_QUEUE`.
            label: whose it is: the service, or "service/consumer".
            read: quick and thread-safe: it runs in the scraper's thread.
        """
        if name not in _GAUGES:
            raise ValueError(f"{name} is no gauge of gridlane_kit.metrics: {sorted(_GAUGES)}")
        self._readers[(name, label)] = read

    def collect(self) -> Iterator[Metric]:
        """Yields everything as Prometheus' families; called by the registry."""
        yield from self._calls()
        yield from self._gates()
        for name, text in _GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=["of"])
            for (of_name, label), read in list(self._readers.items()):
                if of_name == name:
                    family.add_metric([label], read())
            yield family

    def _calls(self) -> Iterable[Metric]:
        calls = CounterMetricFamily(CALLS, "Ended calls", labels=["method", "code"])
        seconds = HistogramMetricFamily(CALL_SECONDS, "Duration of calls", labels=["method"])
        sent = CounterMetricFamily(MESSAGES_SENT, "Messages sent in streams", labels=["method"])
        for stats in list(self._methods.values()):
            for code, count in list(stats.by_code.items()):
                calls.add_metric([stats.method, code], count)
            seconds.add_metric([stats.method], _cumulative(stats.buckets), stats.seconds)
            sent.add_metric([stats.method], stats.sent)
        return (calls, seconds, sent)

    def _gates(self) -> Iterable[Metric]:
        in_flight = GaugeMetricFamily(ADMISSION_IN_FLIGHT, "Calls that run", labels=["class"])
        refused = CounterMetricFamily(ADMISSION_REFUSED, "Calls refused", labels=["class"])
        for name, gate in self._admission.gates.items() if self._admission else ():
            in_flight.add_metric([name.value], gate.in_flight)
            refused.add_metric([name.value], gate.refused)
        return (in_flight, refused)

    def expose(self, port: int, host: str = "127.0.0.1") -> "HttpEndpoint":
        """Serves the metrics over HTTP from a thread of its own; port 0 takes any free one."""
        from prometheus_client import start_http_server

        server, thread = start_http_server(port, host, registry=self.registry)
        return _PrometheusEndpoint(server, thread)


class _PrometheusEndpoint:
    def __init__(self, server: "WSGIServer", thread: "threading.Thread") -> None:
        self._server = server
        self._thread = thread
        self.port = server.server_port

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def _cumulative(buckets: list[int]) -> list[tuple[str, float]]:
    bounds = [str(bound) for bound in BUCKETS_S] + ["+Inf"]
    total = 0
    counted: list[tuple[str, float]] = []
    for bound, count in zip(bounds, list(buckets), strict=True):
        total += count
        counted.append((bound, float(total)))
    return counted
