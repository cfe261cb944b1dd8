"""From the file's tables to what works by them: a key of the same name is the same thing."""

import dataclasses
from functools import lru_cache
from hashlib import blake2b
from typing import Any, TypeVar

from penstock.calls.spec import Row, TablePredictor
from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.settings import Limits, Settings, Stack, UpstreamSettings, fits
from penstock.proxy.config.models import (
    ClassTable,
    Config,
    EstimateTable,
    UpstreamTable,
)
from penstock.proxy.routing import patterns
from penstock.schema.types import Table

_K = TypeVar("_K")
_ROWS_KEPT = 1000


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


def table_of(config: Config) -> TablePredictor:
    """Return the configured table: its rows, then trusted caps, then classes."""
    return TablePredictor(
        tuple(
            _row(row.model, row.path, estimate_of(row, "table")) for row in config.estimates.table
        ),
        trusts_cap=config.estimates.trust_max_tokens,
    )


def default_class_of(config: Config, classes: tuple[TrafficClass, ...]) -> TrafficClass:
    """Return what a call is estimated as while its class is open, as it may go by the estimate."""
    if len(classes) == 1:
        return classes[0]
    return TrafficClass("", estimate=estimate_of(config.estimates.default, "default"))


def _row(model: str, path: str, estimate: TokenEstimate) -> Row:
    @lru_cache(maxsize=_ROWS_KEPT)  # callers choose the names, so memory is bounded
    def row_fits(called: str, tail: str) -> bool:
        return fits(model, called) and fits(path, tail)

    return Row(row_fits, estimate)


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
