"""From the file's tables to the scheduler's settings: a key of the same name is the same thing."""

import dataclasses
from hashlib import blake2b
from typing import Any, TypeVar

from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.settings import Limits, Settings, Stack, UpstreamSettings
from penstock.proxy.config.models import (
    ClassTable,
    Config,
    EstimateTable,
    UpstreamTable,
)
from penstock.proxy.routing import patterns
from penstock.schema.types import Table

_K = TypeVar("_K")


def core_settings(config: Config) -> Settings:
    """Return the scheduler's settings for a configuration that has been checked."""
    return _same_named(
        Settings,
        config.scheduler,
        classes=classes_of(config),
        upstreams=tuple(_upstream(item) for item in config.upstreams),
        stack=_same_named(Stack, config.scheduler),
    )


def classes_of(config: Config) -> tuple[TrafficClass, ...]:
    """Return the traffic classes as the scheduler takes them."""
    return tuple(_class(item, config.estimates.default) for item in config.classes)


def estimate_of(table: EstimateTable, source: str) -> TokenEstimate:
    """Return a table's prior as the scheduler's."""
    return TokenEstimate(table.p50_tokens, table.p90_tokens, source)


def _class(item: ClassTable, default: EstimateTable) -> TrafficClass:
    source = "class" if item.estimate else "default"
    return _same_named(TrafficClass, item, estimate=estimate_of(item.estimate or default, source))


def _upstream(item: UpstreamTable) -> UpstreamSettings:
    return _same_named(
        UpstreamSettings,
        item,
        models=patterns(item.dialect, item.models),
        limits=_same_named(Limits, item.limits),
        model_limits={
            name: _same_named(Limits, table)
            for name, table in zip(
                patterns(item.dialect, item.model_limits), item.model_limits.values(), strict=True
            )
        },
        identity=blake2b(f"{item.dialect} {item.base_url}".encode(), digest_size=8).hexdigest(),
    )


def _same_named(kind: type[_K], table: Table, **others: Any) -> _K:
    """Return the settings with the table's keys of the same names; what is left out is theirs."""
    names = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    given = {name: getattr(table, name) for name in names if name in type(table).model_fields}
    return kind(**{k: v for k, v in given.items() if v is not None} | others)
