"""From a configuration table to a provider: the names and meanings of PAPER.md."""

from collections.abc import Mapping
from typing import Any

from penstock.errors import ConfigError
from penstock.sim.params import read_params, refuse_unknown
from penstock.sim.providers.base import Provider
from penstock.sim.providers.changes import read_changes
from penstock.sim.providers.faulty import FaultyServer, read_windows
from penstock.sim.providers.linear import LinearParams, LinearServer
from penstock.sim.providers.rate_limited import LIMITS, RateLimitedParams, RateLimitedServer
from penstock.sim.providers.serial import SerialParams
from penstock.sim.providers.shared import SharedParams
from penstock.sim.providers.sharing import SharingServer
from penstock.sim.providers.slots import SlotsParams
from penstock.sim.providers.thrash import ThrashParams

_SHARING: dict[str, type[Any]] = {
    "slots": SlotsParams,
    "shared": SharedParams,
    "thrash": ThrashParams,
    "serial": SerialParams,
}
MODELS = ("linear", *_SHARING, "rate_limited", "faulty")
"""Names that `model` may have."""
_EVERY = ("limits", "faults")
"""Keys that any provider may have."""


def build_provider(
    table: Mapping[str, Any], *, seed: int, where: str = "provider", first_tokens: bool = True
) -> Provider:
    """Return the provider that the table describes.

    `model` names it; the rest are its parameters, plus `changes = [{at_s = 60, slots = 4}, ...]`.
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
    changes = rest.pop("changes", [])
    if model == "linear":
        linear = read_params(LinearParams, rest, where=where, also=("model", "changes", *_EVERY))
        linear_changes = read_changes(linear, changes, where=f"{where}.changes")
        return LinearServer(linear, linear_changes, seed=seed)
    params = read_params(_SHARING[model], rest, where=where, also=("model", "changes", *_EVERY))
    later = read_changes(params, changes, where=f"{where}.changes")
    return SharingServer(params, later, first_tokens=first_tokens)


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
