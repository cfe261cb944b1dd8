"""Histograms of a pipeline of our own: a value costs 1 us, where the SDK's take 8.

The reader adds them to what the SDK has collected: overriding `_receive_metrics` is the SDK's
documented way to see that.
"""

import os
import threading
import time
from bisect import bisect_left
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    HistogramDataPoint,
    Metric,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.export import Histogram as HistogramData

from penstock.telemetry.instruments import BEYOND, MOST_SERIES, Labels

SCOPE = "penstock"


def wanted() -> bool:
    """Return whether sums since the start are wanted, which is what these are."""
    preference = os.environ.get("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "")
    return preference.strip().lower() in ("", "cumulative")


class _Histogram:
    """What one series has had."""

    __slots__ = ("counts", "largest", "smallest", "sum")

    def __init__(self, buckets: int) -> None:
        self.counts = [0] * buckets
        self.sum = 0.0
        self.smallest, self.largest = float("inf"), float("-inf")


@dataclass(frozen=True, slots=True)
class _About:
    name: str
    unit: str
    text: str


class Buckets:
    """One histogram; `record` may be called from any thread."""

    def __init__(self, about: _About, bounds: tuple[float, ...]) -> None:
        """Start at nothing."""
        self._about = about
        self._bounds = bounds
        self._rows: dict[Labels, _Histogram] = {}
        self._lock = threading.Lock()
        self._since_ns = time.time_ns()

    def record(self, amount: float, labels: Labels) -> None:
        """Count a value."""
        with self._lock:
            row = self._rows.get(labels)
            if row is None:
                if len(self._rows) >= MOST_SERIES:
                    labels = BEYOND
                row = self._rows.setdefault(labels, _Histogram(len(self._bounds) + 1))
            row.counts[bisect_left(self._bounds, amount)] += 1
            row.sum += amount
            if amount < row.smallest:
                row.smallest = amount
            if amount > row.largest:
                row.largest = amount

    def metric(self) -> Metric:
        """Return it as the SDK would."""
        now_ns = time.time_ns()
        with self._lock:
            points = [
                HistogramDataPoint(
                    attributes=dict(labels),
                    start_time_unix_nano=self._since_ns,
                    time_unix_nano=now_ns,
                    count=sum(row.counts),
                    sum=row.sum,
                    bucket_counts=tuple(row.counts),
                    explicit_bounds=self._bounds,
                    min=row.smallest,
                    max=row.largest,
                )
                for labels, row in self._rows.items()
            ]
        about = self._about
        data = HistogramData(points, AggregationTemporality.CUMULATIVE)
        return Metric(about.name, about.text, about.unit, data)


class BucketReader(PeriodicExportingMetricReader):
    """Exports the SDK's metrics, and ours with them."""

    buckets: Callable[[], list[Buckets]] = staticmethod(list)
    """Returns ours."""

    def _receive_metrics(
        self, metrics_data: MetricsData, timeout_millis: float = 10_000, **more: Any
    ) -> None:
        ours = [each.metric() for each in self.buckets()]
        for group in metrics_data.resource_metrics:
            for scope in group.scope_metrics:
                if scope.scope.name == SCOPE:  # each scope is exported once
                    cast("list[Metric]", scope.metrics).extend(ours)
        super()._receive_metrics(metrics_data, timeout_millis, **more)


def made(name: str, unit: str, text: str, bounds: tuple[float, ...]) -> Buckets:
    """Return an empty histogram."""
    return Buckets(_About(name, unit, text), bounds)
