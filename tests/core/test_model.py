"""Requests, estimates and buckets."""

import math

import pytest

from penstock.core.model import TokenEstimate, bucket_of
from penstock.core.settings import Settings, UpstreamSettings
from tests.core.story import BATCH, request


@pytest.mark.parametrize(
    ("tokens", "bucket"),
    [
        *((0, "short"), (64, "short"), (65, "medium"), (256, "medium"), (257, "long")),
        *((1024, "long"), (1025, "xlong"), (1e9, "xlong"), (math.inf, "xlong")),
    ],
)
def test_a_bucket_includes_its_upper_bound(tokens: float, bucket: str) -> None:
    assert bucket_of(tokens) == bucket


@pytest.mark.parametrize("tokens", [-1, math.nan])
def test_what_is_no_count_has_no_bucket(tokens: float) -> None:
    with pytest.raises(ValueError, match="was a failed reply counted"):
        bucket_of(tokens)


@pytest.mark.parametrize(
    ("p50", "p90"), [(0, 10), (20, 10), (10, math.inf), (math.nan, 10), (10, math.nan)]
)
def test_quantiles_that_are_none_are_refused(p50: float, p90: float) -> None:
    with pytest.raises(ValueError, match="is no estimate"):
        TokenEstimate(p50, p90)


def test_a_request_is_charged_its_median() -> None:
    assert request(1, cost=40, p90=90).cost_tokens == 40


def test_settings_without_classes_or_with_a_name_twice_are_refused() -> None:
    with pytest.raises(ValueError, match=r"classes=\(\) leaves nothing to schedule"):
        Settings(())
    with pytest.raises(ValueError, match=r"upstreams=\(\) leaves nothing"):
        Settings((BATCH,), ())
    with pytest.raises(ValueError, match="names one twice"):
        Settings((BATCH, BATCH))
    with pytest.raises(ValueError, match="names one twice"):
        Settings((BATCH,), (UpstreamSettings("a"), UpstreamSettings("a")))
