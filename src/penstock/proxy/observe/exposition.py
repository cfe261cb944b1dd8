"""The /metrics page: our tallies and the scheduler's state in Prometheus' text format."""

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from penstock.core.snapshot import LaneSnapshot, Snapshot
from penstock.proxy.observe.metrics import Metrics, Spread, Tally

Gauge = tuple[str, str, Mapping[str, str], float | None]
"""Name, help, labels (the same names for the same gauge) and value. Without a value there is no
line of it, but its HELP and TYPE are there: what may be seen one day is to be found before."""
_COUNTERS = ("penstock_faults", "penstock_ignored_numbers", "penstock_unmeasured_replies")
"""Of the state, what only grows."""


class Exposition(Collector):
    """Renders the page on demand."""

    content_type = b"text/plain; version=0.0.4; charset=utf-8"

    def __init__(
        self,
        metrics: Metrics,
        snapshot: Callable[[], Snapshot],
        gauges: Callable[[], Iterable[Gauge]],
    ) -> None:
        """Register with a registry of our own: nothing global, so that tests run side by side."""
        self._metrics = metrics
        self._snapshot = snapshot
        self._gauges = gauges
        self._registry = CollectorRegistry()
        self._registry.register(self)
        ProcessCollector(registry=self._registry)

    def render(self) -> bytes:
        """Return the page."""
        return generate_latest(self._registry)

    def collect(self) -> Iterable[Metric]:
        """Yield every metric, for the registry."""
        for tally in self._metrics.tallies:
            yield _counter(tally)
        for spread in self._metrics.spreads:
            yield _histogram(spread)
        yield from _families(_state(self._snapshot()))
        yield from _families(self._gauges())

    def describe(self) -> Iterable[Metric]:
        """Return nothing: `collect` is not to run at registration."""
        return ()


def _counter(tally: Tally) -> Metric:
    family = CounterMetricFamily(tally.name, tally.help, labels=tally.labels)
    for labels, count in sorted(tally.counts.items()):
        family.add_metric(labels, count)
    return family


def _histogram(spread: Spread) -> Metric:
    family = HistogramMetricFamily(spread.name, spread.help, labels=spread.labels)
    for labels in sorted(spread.rows):
        buckets, total = spread.buckets(labels)
        family.add_metric(labels, buckets=buckets, sum_value=total)
    return family


def _state(state: Snapshot) -> Iterable[Gauge]:
    yield "penstock_draining", "1 while draining.", {}, state.draining
    yield "penstock_deferred", "Requests held back by the cost ladder.", {}, state.deferred
    yield "penstock_faults", "Errors inside the scheduler, contained.", {}, state.faults
    ignored = "Impossible numbers of providers that were ignored."
    yield "penstock_ignored_numbers", ignored, {}, state.ignored_numbers
    for name, upstream in state.upstreams.items():
        of = {"upstream": name}
        yield "penstock_window", "Requests allowed in flight.", of, upstream.window
        yield "penstock_in_flight", "Requests in flight.", of, upstream.in_flight
        tokens = upstream.in_flight_tokens
        yield "penstock_in_flight_tokens", "Predicted tokens in flight.", of, tokens
        slowdown = "Latency over predicted service time."
        yield "penstock_slowdown", slowdown, of, upstream.slowdown
        unmeasured = "Replies whose times were no evidence, because this process had stalled."
        yield "penstock_unmeasured_replies", unmeasured, of, upstream.unmeasured
        closed = "Accounts at an upstream to which nothing is sent at present."
        yield "penstock_open_circuits", closed, of, len(upstream.open)
        paused = "Seconds until the longest pause of an upstream ends, by its cause."
        yield "penstock_pause_seconds", paused, of | {"cause": ""}, None
        ends = dict(sorted((each.cause, each.until) for each in upstream.open))
        for cause, until in ends.items():
            yield "penstock_pause_seconds", paused, of | {"cause": cause}, until - state.now
    text = "Seconds until an operator's pin of an upstream or a class ends."
    yield "penstock_pin_seconds", text, {"pin": "", "name": ""}, None
    for pin in state.pins:
        labels = {"pin": pin.what, "name": pin.name}
        yield "penstock_pin_seconds", text, labels, pin.until - state.now
    yield from _lanes(state.lanes)


def _lanes(lanes: Iterable[LaneSnapshot]) -> Iterable[Gauge]:
    severity, backlog = "Overload in [0, 1].", "Requests waiting."
    tokens = "Predicted tokens waiting."
    none = {"upstreams": "", "traffic_class": ""}
    yield "penstock_severity", severity, {"upstreams": ""}, None
    yield "penstock_backlog", backlog, none, None
    yield "penstock_backlog_tokens", tokens, none, None
    for lane in lanes:
        names = {"upstreams": "+".join(lane.upstreams)}
        yield "penstock_severity", severity, names, lane.severity
        for kind, each in lane.classes.items():
            labels = names | {"traffic_class": kind}
            yield "penstock_backlog", backlog, labels, each.waiting
            yield "penstock_backlog_tokens", tokens, labels, each.waiting_tokens


def _families(gauges: Iterable[Gauge]) -> Iterable[Metric]:
    families: dict[str, GaugeMetricFamily | CounterMetricFamily] = {}
    for name, text, labels, value in gauges:
        family = families.get(name)
        if family is None:
            kind = CounterMetricFamily if name in _COUNTERS else GaugeMetricFamily
            family = families[name] = kind(name, text, labels=list(labels))
        if value is not None:
            family.add_metric(list(labels.values()), value)
    return families.values()
