"""From the file's tables to the scheduler's settings."""

import math

from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.settings import Limits, PolicySpec, Settings, Stack, UpstreamSettings
from penstock.proxy.config.models import (
    ClassTable,
    Config,
    EstimateRow,
    EstimateTable,
    LimitsTable,
    Upstream,
)
from penstock.proxy.config.problem import Problem
from penstock.proxy.config.schema import PolicyTable
from penstock.proxy.routing import patterns


def core_settings(config: Config, problems: list[Problem]) -> Settings | None:
    """Return the scheduler's settings; None if a policy cannot be built, said in `problems`."""
    defaults = Stack()
    table = config.scheduler
    stack = Stack(
        allocation=_policy(table.allocation, defaults.allocation),
        ordering=_policy(table.ordering, defaults.ordering),
        overload=_policy(table.overload, defaults.overload),
        capacity=_policy(table.capacity, defaults.capacity),
    )
    settings = Settings(
        classes=tuple(_class(item, config.estimates.default) for item in config.classes),
        upstreams=tuple(_upstream(item) for item in config.upstreams),
        stack=stack,
        queue_limit=table.queue_limit,
        sticky=table.sticky,
        retry_share=table.retry_share,
        max_attempts=table.max_attempts,
    )
    return settings if _buildable(settings, problems) else None


def _buildable(settings: Settings, problems: list[Problem]) -> bool:
    """Build once for the error text: policies check their own options."""
    from penstock.policies.registry import build_scheduler

    try:
        build_scheduler(settings)
    except (ValueError, TypeError) as error:
        problems.append(Problem("scheduler", "", str(error)))
        return False
    return True


def _policy(policy: PolicyTable | None, default: PolicySpec) -> PolicySpec:
    return default if policy is None else PolicySpec(policy.kind, policy.options)


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
        capacity=None if item.capacity is None else _policy(item.capacity, PolicySpec("fixed")),
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
