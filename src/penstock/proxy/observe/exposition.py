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

from penstock.core.snapshot import PauseSnapshot, Snapshot
from penstock.proxy.observe.metrics import Metrics, Spread, Tally

Gauge = tuple[str, str, Mapping[str, str], float]
"""Name, help, labels (the same names for the same gauge) and value."""


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
        yield from _state(self._snapshot())
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


def _state(state: Snapshot) -> Iterable[Metric]:
    yield GaugeMetricFamily("penstock_draining", "1 while draining.", value=state.draining)
    yield GaugeMetricFamily(
        "penstock_deferred", "Requests held back by the cost ladder.", value=state.deferred
    )
    yield CounterMetricFamily(
        "penstock_faults", "Errors inside the scheduler, contained.", value=state.faults
    )
    yield CounterMetricFamily(
        "penstock_ignored_numbers",
        "Impossible numbers of providers that were ignored.",
        value=state.ignored_numbers,
    )
    window = GaugeMetricFamily(
        "penstock_window", "Requests allowed in flight.", labels=["upstream"]
    )
    flying = GaugeMetricFamily("penstock_in_flight", "Requests in flight.", labels=["upstream"])
    tokens = GaugeMetricFamily(
        "penstock_in_flight_tokens", "Predicted tokens in flight.", labels=["upstream"]
    )
    slowdown = GaugeMetricFamily(
        "penstock_slowdown", "Latency over predicted service time.", labels=["upstream"]
    )
    unmeasured = CounterMetricFamily(
        "penstock_unmeasured_replies",
        "Replies whose times were no evidence, because this process had stalled.",
        labels=["upstream"],
    )
    paused = GaugeMetricFamily(
        "penstock_pause_seconds",
        "Seconds until the longest pause of an upstream ends, by its cause.",
        labels=["upstream", "cause"],
    )
    circuits = GaugeMetricFamily(
        "penstock_open_circuits",
        "Accounts at an upstream to which nothing is sent at present.",
        labels=["upstream"],
    )
    for name, upstream in state.upstreams.items():
        ends = {pause.cause: pause.until for pause in sorted(upstream.open, key=_until)}
        for cause, until in ends.items():
            paused.add_metric([name, cause], until - state.now)
        circuits.add_metric([name], float(len(upstream.open)))
        unmeasured.add_metric([name], upstream.unmeasured)
        window.add_metric([name], upstream.window)
        flying.add_metric([name], upstream.in_flight)
        tokens.add_metric([name], upstream.in_flight_tokens)
        slowdown.add_metric([name], upstream.slowdown)
    yield from (window, flying, tokens, slowdown, unmeasured, paused, circuits)
    pins = GaugeMetricFamily(
        "penstock_pin_seconds",
        "Seconds until an operator's pin of an upstream or a class ends.",
        labels=["pin", "name"],
    )
    for pin in state.pins:
        pins.add_metric([pin.what, pin.name], pin.until - state.now)
    yield pins
    severity = GaugeMetricFamily("penstock_severity", "Overload in [0, 1].", labels=["upstreams"])
    backlog = GaugeMetricFamily(
        "penstock_backlog", "Requests waiting.", labels=["upstreams", "traffic_class"]
    )
    backlog_tokens = GaugeMetricFamily(
        "penstock_backlog_tokens",
        "Predicted tokens waiting.",
        labels=["upstreams", "traffic_class"],
    )
    for lane in state.lanes:
        names = "+".join(lane.upstreams)
        severity.add_metric([names], lane.severity)
        for kind, each in lane.classes.items():
            backlog.add_metric([names, kind], each.waiting)
            backlog_tokens.add_metric([names, kind], each.waiting_tokens)
    yield from (severity, backlog, backlog_tokens)


def _until(pause: PauseSnapshot) -> float:
    return pause.until


def _families(gauges: Iterable[Gauge]) -> Iterable[Metric]:
    families: dict[str, GaugeMetricFamily] = {}
    for name, text, labels, value in gauges:
        family = families.get(name)
        if family is None:
            family = families[name] = GaugeMetricFamily(name, text, labels=list(labels))
        family.add_metric(list(labels.values()), value)
    return families.values()
