"""Our histograms say what the SDK's would, and are bounded as they are."""

import pytest
from opentelemetry.metrics import CallbackOptions
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import (
    HistogramDataPoint,
    InMemoryMetricReader,
    Metric,
)

from penstock.telemetry import buckets
from penstock.telemetry.instruments import MOST_SERIES, Sums

BOUNDS = (0.0, 1.0, 5.0)
VALUES = [(0.0, "a"), (0.5, "a"), (1.0, "b"), (5.0, "a"), (7.5, "a")]


def points(metric: Metric) -> dict[str, tuple[object, ...]]:
    found: dict[str, tuple[object, ...]] = {}
    for point in metric.data.data_points:
        assert isinstance(point, HistogramDataPoint)
        assert point.attributes is not None
        found[str(point.attributes["x"])] = (
            point.count, point.sum, tuple(point.bucket_counts), tuple(point.explicit_bounds),
            point.min, point.max,
        )  # fmt: skip
    return found


def test_they_say_what_the_sdks_say() -> None:
    reader = InMemoryMetricReader()
    theirs = (
        MeterProvider([reader])
        .get_meter("test")
        .create_histogram("h", "s", "text", explicit_bucket_boundaries_advisory=BOUNDS)
    )
    ours = buckets.made("h", "s", "text", BOUNDS)
    for value, x in VALUES:
        theirs.record(value, {"x": x})
        ours.record(value, (("x", x),))
    data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    own = ours.metric()
    assert points(own) == points(metric)
    assert (own.name, own.unit, own.description) == (metric.name, metric.unit, metric.description)


def test_however_many_models_callers_name_the_series_are_bounded() -> None:
    ours = buckets.made("h", "s", "text", BOUNDS)
    for number in range(MOST_SERIES + 100):
        ours.record(1.0, (("x", str(number)),))
    found = ours.metric().data.data_points
    assert len(found) == MOST_SERIES + 1
    beyond = [each for each in found if "otel.metric.overflow" in (each.attributes or {})]
    assert [each.count for each in beyond if isinstance(each, HistogramDataPoint)] == [100]

    sums = Sums()
    for number in range(MOST_SERIES + 100):
        sums.add(1.0, (("x", str(number)),))
    sums.add(1.0, (("x", "0"),))  # known
    seen = list(sums.observed(CallbackOptions()))
    assert (len(seen), seen[0].value, seen[-1].value) == (MOST_SERIES + 1, 2.0, 100.0)
    assert seen[-1].attributes == {"otel.metric.overflow": True}


@pytest.mark.parametrize(("said", "ours"), [("", True), ("Cumulative", True), ("delta", False)])
def test_who_wants_differences_gets_them_from_the_sdk(
    monkeypatch: pytest.MonkeyPatch, said: str, ours: bool
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", said)
    assert buckets.wanted() is ours
