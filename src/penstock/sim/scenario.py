"""The scenario format of `penstock simulate`: what runs, against what, under which policies.

The names are an interface. Everything is checked before anything runs; every refusal names the
key, the value and the rule.
"""

import math
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from penstock.core.settings import Limits, PolicySpec, Settings, Stack, UpstreamSettings
from penstock.errors import ConfigError
from penstock.policies.registry import build_scheduler
from penstock.sim.calls import BUCKET_RANGE_TOKENS
from penstock.sim.information import ClassPlan
from penstock.sim.params import (
    count,
    positive,
    positive_or_none,
    read_params,
    refuse_unknown,
)
from penstock.sim.providers.base import Provider
from penstock.sim.providers.registry import build_provider
from penstock.sim.workload_spec import WorkloadSpec, read_workload

DEFAULT_CLASSES = (
    ClassPlan("interactive", ("short",), weight=4.0),
    ClassPlan("heavy", ("medium", "long", "xlong"), weight=1.0),
)
"""As the sidecar's default configuration has them."""
DEFAULT_UPSTREAM = "default"
DEFAULT_SEEDS = (1, 2, 3, 4, 5)
_SEED_STEP = 1_000_003
_GUESS = UpstreamSettings()
_LAYERS = ("allocation", "ordering", "overload", "capacity")


@dataclass(frozen=True, slots=True)
class PolicyPlan:
    """One stack to run: the four layers, and what else the scheduler may be told.

    Attributes:
        queue_limit: how many requests may wait in all.
        base_s, s_per_token: first guess of the service time, before any reply was seen.
        limits: requests and tokens a minute that the scheduler is told of.

    """

    stack: Stack = field(default_factory=Stack)
    queue_limit: int = 100_000
    base_s: float = _GUESS.base_s
    s_per_token: float = _GUESS.s_per_token
    limits: Limits = field(default_factory=Limits)


@dataclass(frozen=True, slots=True)
class Scenario:
    """A whole what-if.

    Attributes:
        provider: the table that `build_provider` takes; of several upstreams the first's.
        policies: by name, in the order of the file.
        upstreams: the providers' tables by name, in the order of the file.

    """

    provider: Mapping[str, Any]
    workload: WorkloadSpec
    seeds: tuple[int, ...] = DEFAULT_SEEDS
    classes: tuple[ClassPlan, ...] = DEFAULT_CLASSES
    policies: Mapping[str, PolicyPlan] = field(default_factory=lambda: {"default": PolicyPlan()})
    upstreams: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Name the one provider of a scenario that names none."""
        if not self.upstreams:
            object.__setattr__(self, "upstreams", {DEFAULT_UPSTREAM: self.provider})

    def build_providers(self, seed: int) -> dict[str, Provider]:
        """Return new providers by upstream; each draws on its own."""
        return {
            name: build_provider(
                table, seed=seed + _SEED_STEP * number, first_tokens=self.workload.stream > 0
            )
            for number, (name, table) in enumerate(self.upstreams.items())
        }


def load_scenario(path: Path) -> Scenario:
    """Read a scenario file; a trace's path is taken from the file's own folder.

    Raises:
        ConfigError: the file cannot be read, is no TOML, or says something that cannot be.

    """
    try:
        document = tomllib.loads(path.read_text("utf-8-sig"))  # Windows' editors write a BOM
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:  # not all are TOML's own: a number too long
        raise ConfigError(f"{path}: no valid TOML: {error}") from error
    return read_scenario(document, folder=path.parent)


def read_scenario(document: Mapping[str, Any], *, folder: Path = Path()) -> Scenario:
    """Return the scenario that the table describes.

    Raises:
        ConfigError: a key is unknown, missing or has an impossible value.

    """
    known = ("seeds", "provider", "providers", "workload", "classes", "policies")
    refuse_unknown(document, known, where="scenario")
    upstreams = _upstreams(document)
    scenario = Scenario(
        provider=next(iter(upstreams.values())),
        upstreams=upstreams,
        workload=read_workload(_table(document, "workload"), folder=folder),
        seeds=_seeds(document.get("seeds", list(DEFAULT_SEEDS))),
        classes=_classes(document.get("classes")),
        policies=_policies(document.get("policies", {})),
    )
    if "classes" in document and scenario.workload.information == "recorded":
        raise ConfigError("classes: does nothing: information = 'recorded' has the log's classes")
    for name, plan in scenario.policies.items():
        _try_stack(name, plan, scenario)
    return scenario


@dataclass(frozen=True, slots=True)
class _PolicyNumbers:
    queue_limit: int = count(100_000)
    base_s: float = positive(_GUESS.base_s)
    s_per_token: float = positive(_GUESS.s_per_token, low=1e-9, high=1e3)


@dataclass(frozen=True, slots=True)
class _LimitNumbers:
    requests_per_min: float | None = positive_or_none(low=1e-3, high=1e12)
    tokens_per_min: float | None = positive_or_none(low=1e-3, high=1e12)
    input_tokens_per_min: float | None = positive_or_none(low=1e-3, high=1e12)
    output_tokens_per_min: float | None = positive_or_none(low=1e-3, high=1e12)


def read_policy(table: Mapping[str, Any], *, where: str) -> PolicyPlan:
    """Return the plan; an empty table is penstock's default stack.

    Raises:
        ConfigError: an unknown key or layer, or a number against its rule.

    """
    known = (*_LAYERS, "limits", "queue_limit", "base_s", "s_per_token")
    refuse_unknown(table, known, where=where)
    layers = {k: _spec(table[k], where=f"{where}.{k}") for k in _LAYERS if k in table}
    others = {k: v for k, v in table.items() if k not in (*_LAYERS, "limits")}
    numbers = read_params(_PolicyNumbers, others, where=where)
    limits = _limits(table["limits"], where=f"{where}.limits") if "limits" in table else Limits()
    return PolicyPlan(
        Stack(**layers), numbers.queue_limit, numbers.base_s, numbers.s_per_token, limits
    )


def settings_of(
    plan: PolicyPlan, classes: Sequence[Any], upstreams: Iterable[str] = (DEFAULT_UPSTREAM,)
) -> Settings:
    """Return the scheduler's settings for a plan over these traffic classes and upstreams."""
    each = tuple(
        UpstreamSettings(name, base_s=plan.base_s, s_per_token=plan.s_per_token, limits=plan.limits)
        for name in upstreams
    )
    return Settings(tuple(classes), upstreams=each, stack=plan.stack, queue_limit=plan.queue_limit)


def _try_stack(name: str, plan: PolicyPlan, scenario: Scenario) -> None:
    teller = scenario.workload.teller(scenario.classes)
    try:
        build_scheduler(settings_of(plan, teller.classes(), scenario.upstreams))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"policies.{name}.{error}") from error


def _upstreams(document: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """Return the providers' tables by name; their errors belong here, not to the first run."""
    if "providers" not in document:
        found = {DEFAULT_UPSTREAM: _table(document, "provider")}
        build_provider(found[DEFAULT_UPSTREAM], seed=0)
        return found
    if "provider" in document:
        raise ConfigError("providers: must not stand beside provider: name each upstream there")
    tables = _table(document, "providers")
    if not tables:
        raise ConfigError("providers = {}: must be tables [providers.NAME], at least one")
    for name, table in tables.items():
        build_provider(table, seed=0, where=f"providers.{name}")
    return dict(tables)


def _table(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    if key not in document:
        raise ConfigError(f"{key}: is missing: it must be a table")
    value = document[key]
    if not isinstance(value, Mapping):
        raise ConfigError(f"{key} = {value!r}: must be a table")
    return value


def _seeds(value: object) -> tuple[int, ...]:
    good = isinstance(value, list) and bool(value)
    if isinstance(value, list):
        good = good and all(type(seed) is int and seed >= 0 for seed in value)
        good = good and len(set(value)) == len(value)
    if not good or not isinstance(value, list):
        raise ConfigError(
            f"seeds = {value!r}: must be a list of different whole numbers >= 0, at least one"
        )
    return tuple(value)


def _classes(value: object) -> tuple[ClassPlan, ...]:
    if value is None:
        return DEFAULT_CLASSES
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"classes = {value!r}: must be tables [classes.NAME] with buckets")
    plans = tuple(_class(name, table) for name, table in value.items())
    placed = [bucket for plan in plans for bucket in plan.buckets]
    if sorted(placed) != sorted(BUCKET_RANGE_TOKENS):
        raise ConfigError(
            f"classes: buckets {placed!r}: each of {', '.join(BUCKET_RANGE_TOKENS)} must be in "
            "exactly one class"
        )
    return plans


@dataclass(frozen=True, slots=True)
class _ClassNumbers:
    weight: float = positive(1.0, high=1e6)


def _class(name: str, table: object) -> ClassPlan:
    where = f"classes.{name}"
    if not isinstance(table, Mapping):
        raise ConfigError(f"{where} = {table!r}: must be a table")
    refuse_unknown(table, ("buckets", "weight"), where=where)
    rule = f"must be a list of some of {', '.join(BUCKET_RANGE_TOKENS)}"
    if "buckets" not in table:
        raise ConfigError(f"{where}.buckets: is missing: it {rule}")
    buckets = table["buckets"]
    known = list(BUCKET_RANGE_TOKENS)
    if not isinstance(buckets, list) or not buckets or not all(b in known for b in buckets):
        raise ConfigError(f"{where}.buckets = {buckets!r}: {rule}")
    numbers = {k: v for k, v in table.items() if k != "buckets"}
    weight = read_params(_ClassNumbers, numbers, where=where).weight
    return ClassPlan(name, tuple(buckets), weight)


def _policies(value: object) -> dict[str, PolicyPlan]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"policies = {value!r}: must be tables [policies.NAME]")
    plans: dict[str, PolicyPlan] = {}
    for name, table in (value or {"default": {}}).items():
        if not isinstance(table, Mapping):
            raise ConfigError(f"policies.{name} = {table!r}: must be a table")
        plans[name] = read_policy(table, where=f"policies.{name}")
    return plans


def _spec(value: object, *, where: str) -> PolicySpec:
    if isinstance(value, str):
        return PolicySpec(value)
    if isinstance(value, Mapping) and isinstance(value.get("kind"), str):
        return PolicySpec(value["kind"], {k: v for k, v in value.items() if k != "kind"})
    raise ConfigError(f"{where} = {value!r}: must be a policy's name, or a table with its kind")


def _limits(value: object, *, where: str) -> Limits:
    if not isinstance(value, Mapping):
        raise ConfigError(f"{where} = {value!r}: must be a table")
    if not value:
        known = ", ".join(f.name for f in fields(_LimitNumbers))
        raise ConfigError(f"{where} = {{}}: states no limit: must have at least one of {known}")
    said = read_params(_LimitNumbers, value, where=where)
    return Limits(
        _or_inf(said.requests_per_min),
        _or_inf(said.tokens_per_min),
        _or_inf(said.input_tokens_per_min),
        _or_inf(said.output_tokens_per_min),
    )


def _or_inf(value: float | None) -> float:
    return math.inf if value is None else value
