"""From the file's tables to the scheduler's settings."""

import math

from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.settings import Limits, Settings, Stack, UpstreamSettings
from penstock.proxy.config.models import (
    ClassTable,
    Config,
    EstimateRow,
    EstimateTable,
    LimitsTable,
    Upstream,
)
from penstock.proxy.config.policies import spec_of, stack_of
from penstock.proxy.routing import patterns


def core_settings(config: Config) -> Settings:
    """Return the scheduler's settings for a configuration that has been checked."""
    table = config.scheduler
    return Settings(
        classes=classes_of(config),
        upstreams=tuple(_upstream(item) for item in config.upstreams),
        stack=stack_of(config),
        queue_limit=table.queue_limit,
        sticky=table.sticky,
        retry_share=table.retry_share,
        max_attempts=table.max_attempts,
    )


def classes_of(config: Config) -> tuple[TrafficClass, ...]:
    """Return the traffic classes as the scheduler takes them."""
    return tuple(_class(item, config.estimates.default) for item in config.classes)


def estimate_of(table: EstimateTable | EstimateRow, source: str) -> TokenEstimate:
    """Return a table's prior as the scheduler's."""
    return TokenEstimate(table.p50_tokens, table.p90_tokens, source)


def _class(item: ClassTable, default: EstimateTable) -> TrafficClass:
    return TrafficClass(
        name=item.name,
        weight=item.weight,
        deadline_s=_or_inf(item.deadline_s),
        estimate=estimate_of(item.estimate or default, "class" if item.estimate else "default"),
        queue_limit=item.queue_limit,
        queue_limit_tokens=_or_inf(item.queue_limit_tokens),
    )


def _upstream(item: Upstream) -> UpstreamSettings:
    return UpstreamSettings(
        name=item.name,
        models=patterns(item.dialect, item.models),
        capacity=None if item.capacity is None else spec_of(item.capacity, Stack().capacity),
        limits=_limits(item.limits),
        base_s=item.base_s,
        s_per_token=item.s_per_token,
    )


def _limits(item: LimitsTable) -> Limits:
    return Limits(
        requests_per_min=_or_inf(item.requests_per_min),
        tokens_per_min=_or_inf(item.tokens_per_min),
        input_tokens_per_min=_or_inf(item.input_tokens_per_min),
        output_tokens_per_min=_or_inf(item.output_tokens_per_min),
    )


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
