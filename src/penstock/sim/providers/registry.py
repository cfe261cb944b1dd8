"""From a configuration table to a provider: the names and meanings of PAPER.md."""

from collections.abc import Mapping
from typing import Any

from penstock.errors import ConfigError
from penstock.schema.json_schema import properties_of
from penstock.schema.problem import refuse_unknown
from penstock.schema.reading import read_params
from penstock.schema.types import Table
from penstock.sim.providers.autoscale import AutoscaleParams, AutoscaleServer
from penstock.sim.providers.base import KeepsCancelled, Provider
from penstock.sim.providers.batching import BatchingParams, BatchingServer
from penstock.sim.providers.changes import Change, read_changes
from penstock.sim.providers.cloud import CloudParams, moves
from penstock.sim.providers.faulty import (
    FaultyServer,
    SlowedServer,
    SpellClock,
    read_spells,
    read_windows,
)
from penstock.sim.providers.linear import LinearParams, LinearServer
from penstock.sim.providers.places import SerialParams, SharedParams, SlotsParams, ThrashParams
from penstock.sim.providers.rate_limited import LIMITS, RateLimitedParams, RateLimitedServer
from penstock.sim.providers.sharing import PoolParams, PoolServer, SharingServer

_PARAMS: dict[str, type[Table]] = {
    "linear": LinearParams,
    "slots": SlotsParams,
    "shared": SharedParams,
    "thrash": ThrashParams,
    "serial": SerialParams,
    "batching": BatchingParams,
    "cloud": CloudParams,
    "pool": PoolParams,
    "autoscale": AutoscaleParams,
}
"""The parameters of each model that serves by itself."""
MODELS = (*_PARAMS, "rate_limited", "faulty")
"""Names that `model` may have."""
_EVERY = ("limits", "faults")
"""Keys that any provider may have."""
_INSIDE = ("model", "changes", "spells", "keeps_cancelled")
"""Keys that any model which serves by itself may have."""


def build_provider(
    table: Mapping[str, Any], *, seed: int, where: str = "provider", first_tokens: bool = True
) -> Provider:
    """Return the provider that the table describes.

    `model` names it; the rest are its parameters, plus `changes = [{at_s = 60, slots = 4}, ...]`,
    `spells = {factor, every_s, for_s}` and `keeps_cancelled`.
    The wrappers `rate_limited` and `faulty` take the provider behind them as the table `inner`;
    `faulty` takes `windows`, a list of faults. Short for these, any table may have `limits` (the
    parameters of `rate_limited`) and `faults` (the windows of `faulty`, which come before).

    Args:
        table: as read from TOML.
        seed: of everything that the provider draws (jitter, shares of faults).
        where: how errors name the table.
        first_tokens: False if nobody listens for first tokens; a simulation is faster then.

    Raises:
        ConfigError: a name, key or value cannot be; the text names the key, the value, the rule.

    """
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} = {table!r}: must be a table")
    rest = dict(table)
    limits, faults = rest.pop("limits", None), rest.pop("faults", None)
    if limits is not None and not isinstance(limits, Mapping):
        raise ConfigError(f"{where}.limits = {limits!r}: must be a table")
    provider = _model(rest, seed=seed, where=where, first_tokens=first_tokens)
    if limits is not None:
        provider = _limited(dict(limits), provider, where=f"{where}.limits")
    if faults is not None:
        windows = read_windows(faults, where=f"{where}.faults")
        provider = FaultyServer(windows, provider, seed=seed)
    return provider


def provider_schema() -> dict[str, Any]:
    """Return the JSON Schema of a provider's table: for each model its own parameters."""
    by_model = [
        {
            "properties": {"model": {"const": model}, **properties_of(params)},
            "required": ["model"],
        }
        for model, params in _PARAMS.items()
    ]
    wrappers = [
        {"properties": {"model": {"const": "rate_limited"}, **properties_of(RateLimitedParams)}},
        {"properties": {"model": {"const": "faulty"}, "windows": {"type": "array"}}},
    ]
    return {"type": "object", "anyOf": [*by_model, *wrappers]}


def _model(rest: dict[str, Any], *, seed: int, where: str, first_tokens: bool) -> Provider:
    if "model" not in rest:
        raise ConfigError(f"{where}.model: is missing: it must be one of {', '.join(MODELS)}")
    model = rest.pop("model")
    if model not in MODELS:
        raise ConfigError(f"{where}.model = {model!r}: must be one of {', '.join(MODELS)}")
    if model == "faulty":
        return _faulty(rest, seed=seed, where=where)
    if model == "rate_limited":
        inner = _inner(rest, seed=seed, where=where)
        return _limited(rest, inner, where=where, also=("model", "inner", *_EVERY))
    return _serving(model, rest, seed=seed, where=where, first_tokens=first_tokens)


def _serving(
    model: str, rest: dict[str, Any], *, seed: int, where: str, first_tokens: bool
) -> Provider:
    """Return a model that serves by itself, on the clock of its spells if it has any."""
    tables, keeps = rest.pop("changes", []), rest.pop("keeps_cancelled", False)
    if not isinstance(keeps, bool):
        raise ConfigError(f"{where}.keeps_cancelled = {keeps!r}: must be true or false")
    clock = None
    if "spells" in rest:
        spells = read_spells(rest.pop("spells"), where=f"{where}.spells")
        clock = SpellClock(spells, seed=seed)
    params = read_params(_PARAMS[model], rest, where=where, also=(*_INSIDE, *_EVERY))
    changes = read_changes(params, tables, where=f"{where}.changes")
    if clock is not None:
        changes = tuple(Change(clock.to_provider_s(c.at_s), c.params) for c in changes)
    provider = _server(params, changes, seed=seed, first_tokens=first_tokens)
    if clock is not None:
        provider = SlowedServer(provider, clock)
    return KeepsCancelled(provider) if keeps else provider


def _server(
    params: Any, changes: tuple[Change[Any], ...], *, seed: int, first_tokens: bool
) -> Provider:
    if isinstance(params, LinearParams):
        return LinearServer(params, changes, seed=seed)
    if isinstance(params, BatchingParams):
        return BatchingServer(params, changes, seed=seed)
    if isinstance(params, PoolParams):
        return PoolServer(params, changes, seed=seed, first_tokens=first_tokens)
    if isinstance(params, AutoscaleParams):
        return AutoscaleServer(params, changes, seed=seed, first_tokens=first_tokens)
    if isinstance(params, CloudParams):
        over_time = moves(params, changes, seed=seed)
        return SharingServer(params.left(0.0), over_time, seed=seed, first_tokens=first_tokens)
    return SharingServer(params, changes, seed=seed, first_tokens=first_tokens)


def _inner(rest: dict[str, Any], *, seed: int, where: str) -> Provider:
    if "inner" not in rest:
        raise ConfigError(f"{where}.inner: missing: it must be a table with model")
    return build_provider(rest.pop("inner"), seed=seed, where=f"{where}.inner")


def _limited(
    rest: dict[str, Any], inner: Provider, *, where: str, also: tuple[str, ...] = ()
) -> Provider:
    tables = rest.pop("changes", [])
    limits = read_params(RateLimitedParams, rest, where=where, also=(*also, "changes"))
    changes = read_changes(limits, tables, where=f"{where}.changes")
    if not any(each.limits_anything() for each in (limits, *(c.params for c in changes))):
        raise ConfigError(
            f"{where}: states no limit: must have at least one of {', '.join(LIMITS)}"
        )
    return RateLimitedServer(limits, inner, changes)


def _faulty(rest: dict[str, Any], *, seed: int, where: str) -> Provider:
    inner = _inner(rest, seed=seed, where=where)
    windows = read_windows(rest.pop("windows", None), where=f"{where}.windows")
    refuse_unknown(rest, ("model", "inner", "windows", *_EVERY), where=where)
    return FaultyServer(windows, inner, seed=seed)
