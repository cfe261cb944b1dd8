"""The scenario format of `penstock simulate`: what runs, against what, under which policies.

The names are an interface. Everything is checked before anything runs; every refusal names the
key, the value and the rule.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, WithJsonSchema

from penstock.core.settings import Limits, Settings, Stack, UpstreamSettings
from penstock.errors import ConfigError
from penstock.policies.registry import build_scheduler
from penstock.schema.policies import (
    AllocationPolicy,
    CapacityPolicy,
    OrderingPolicy,
    OverloadPolicy,
)
from penstock.schema.problem import Collected, refusal
from penstock.schema.reading import read, read_toml
from penstock.schema.types import Complaints, Items, Table
from penstock.sim.calls import BUCKET_RANGE_TOKENS
from penstock.sim.information import ClassPlan
from penstock.sim.params import MAX_S
from penstock.sim.providers.base import Provider
from penstock.sim.providers.registry import build_provider, provider_schema
from penstock.sim.workload_spec import Bucket, WorkloadSpec

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
    policies: Mapping[str, "PolicyTable"] = field(
        default_factory=lambda: {"default": PolicyTable()}
    )
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
    return read_scenario(read_toml(path), folder=path.parent, where=str(path))


def read_scenario(
    document: Mapping[str, Any], *, folder: Path = Path(), where: str = "scenario"
) -> Scenario:
    """Return the scenario that the table describes.

    Args:
        document: as read from TOML.
        folder: where its files are taken from.
        where: how the error names it.

    Raises:
        ConfigError: a key is unknown, missing or has an impossible value; the text names all.

    """
    found = Collected()
    reading = read(ScenarioFile, document, context={"folder": folder})
    found.problems += reading.problems
    file = reading.table
    upstreams: dict[str, Mapping[str, Any]] = {}
    if file is not None and reading.tells("provider", "providers"):
        with found.collecting():
            upstreams = _upstreams(file)
    if found.problems or file is None:
        raise refusal(where, found.problems)
    scenario = Scenario(
        provider=next(iter(upstreams.values())),
        upstreams=upstreams,
        workload=file.workload,
        seeds=file.seeds,
        classes=file.plans(),
        policies=file.policies or {"default": PolicyTable()},
    )
    if file.classes is not None and file.workload.information == "recorded":
        found.problems.append(
            "classes: does nothing: information = 'recorded' has the log's classes"
        )
    for name, plan in scenario.policies.items():
        with found.collecting():
            _try_stack(name, plan, scenario)
    if found.problems:
        raise refusal(where, found.problems)
    return scenario


_PerMinute = Annotated[float, Field(ge=1e-3, le=1e12, allow_inf_nan=False)]
_Seed = Annotated[int, Field(ge=0)]
# Read by a reader of its own, which knows what each model makes of a key.
_Provider = Annotated[dict[str, Any], WithJsonSchema(provider_schema())]
_SEEDS = "be a list of different whole numbers >= 0, at least one"


class LimitsOfTerms(Table):
    """What the scheduler is told of the provider's terms; at least one."""

    requests_per_min: _PerMinute | None = Field(None, description="Requests in any 60 s.")
    tokens_per_min: _PerMinute | None = Field(None, description="All tokens in any 60 s.")
    input_tokens_per_min: _PerMinute | None = Field(None, description="Input tokens in any 60 s.")
    output_tokens_per_min: _PerMinute | None = Field(None, description="Output tokens in any 60 s.")

    def complaints(self) -> Complaints:
        """Refuse a table that states nothing."""
        if not self.model_fields_set:
            known = ", ".join(type(self).model_fields)
            yield "", f"states no limit: must have at least one of {known}"

    def limits(self) -> Limits:
        """Return them as the scheduler takes them."""
        return Limits(**{k: v for k, v in self.model_dump().items() if v is not None})


class PolicyTable(Table):
    """A stack to run; an empty table is penstock's default stack."""

    allocation: AllocationPolicy | None = Field(None, description="Which class sends next.")
    ordering: OrderingPolicy | None = Field(None, description="Which request within a class.")
    overload: OverloadPolicy | None = Field(None, description="Admit, defer or shed.")
    capacity: CapacityPolicy | None = Field(None, description="How much may be in flight.")
    queue_limit: Annotated[int, Field(ge=1, le=10**9)] = Field(
        100_000, description="How many requests may wait in all."
    )
    base_s: Annotated[float, Field(ge=1e-6, le=MAX_S)] = Field(
        _GUESS.base_s, description="First guess of the fixed service time."
    )
    s_per_token: Annotated[float, Field(ge=1e-9, le=1e3)] = Field(
        _GUESS.s_per_token, description="First guess of the time per output token."
    )
    limits: LimitsOfTerms | None = None

    @property
    def stack(self) -> Stack:
        """The four layers; penstock's own where it names none."""
        layers = {layer: getattr(self, layer) for layer in _LAYERS}
        return Stack(**{layer: spec for layer, spec in layers.items() if spec is not None})


class ScenarioClassTable(Table):
    """A traffic class of the scenario."""

    buckets: Items[Bucket] = Field(min_length=1, description="The sizes that belong to it.")
    weight: Annotated[float, Field(ge=1e-6, le=1e6)] = Field(
        1.0, description="Its share of tokens under contention."
    )


class ScenarioFile(Table):
    """What `penstock simulate` reads."""

    seeds: Items[_Seed] = Field(
        DEFAULT_SEEDS,
        min_length=1,
        description="A run for each, with draws of its own.",
        json_schema_extra={"x-rule": _SEEDS, "uniqueItems": True},
    )
    provider: _Provider | None = Field(None, description="What serves the requests.")
    providers: Annotated[dict[str, _Provider], Field(min_length=1)] | None = Field(
        None,
        description="Several upstreams, by name, in place of provider.",
        json_schema_extra={"x-rule": "be tables [providers.NAME], at least one"},
    )
    workload: WorkloadSpec = Field(description="What arrives.", examples=[{"rate_per_s": 1.0}])
    classes: Annotated[dict[str, ScenarioClassTable], Field(min_length=1)] | None = Field(
        None,
        description="Traffic classes by name; each bucket is in exactly one.",
        json_schema_extra={"x-rule": "be tables [classes.NAME] with buckets, at least one"},
    )
    policies: dict[str, PolicyTable] = Field(
        {},
        description="Stacks to run, by name.",
        json_schema_extra={"x-rule": "be tables [policies.NAME]"},
    )

    def complaints(self) -> Complaints:
        """Yield what contradicts itself."""
        if len(set(self.seeds)) != len(self.seeds):
            yield "seeds", f"must {_SEEDS}"
        if self.provider is not None and self.providers is not None:
            yield "providers", "must not stand beside provider: name each upstream there"
        if self.provider is None and self.providers is None:
            yield "provider", "is missing: it must be a table"
        placed = [bucket for plan in self.plans() for bucket in plan.buckets]
        if sorted(placed) != sorted(BUCKET_RANGE_TOKENS):
            each = ", ".join(BUCKET_RANGE_TOKENS)
            yield "classes", f"each of {each} must be in exactly one class, not {', '.join(placed)}"

    def plans(self) -> tuple[ClassPlan, ...]:
        """Return the classes as a run takes them."""
        if self.classes is None:
            return DEFAULT_CLASSES
        return tuple(
            ClassPlan(name, table.buckets, table.weight) for name, table in self.classes.items()
        )


def settings_of(
    plan: PolicyTable, classes: Sequence[Any], upstreams: Iterable[str] = (DEFAULT_UPSTREAM,)
) -> Settings:
    """Return the scheduler's settings for a plan over these traffic classes and upstreams."""
    limits = plan.limits.limits() if plan.limits else Limits()
    each = tuple(
        UpstreamSettings(name, base_s=plan.base_s, s_per_token=plan.s_per_token, limits=limits)
        for name in upstreams
    )
    return Settings(tuple(classes), upstreams=each, stack=plan.stack, queue_limit=plan.queue_limit)


def _try_stack(name: str, plan: PolicyTable, scenario: Scenario) -> None:
    informant = scenario.workload.informant(scenario.classes)
    try:
        build_scheduler(settings_of(plan, informant.classes(), scenario.upstreams))
    except (ValueError, TypeError) as error:
        raise ConfigError(f"policies.{name}.{error}") from error


def _upstreams(file: ScenarioFile) -> dict[str, Mapping[str, Any]]:
    """Return the providers' tables by name; their errors belong here, not to the first run."""
    found = Collected()
    tables = file.providers or {DEFAULT_UPSTREAM: file.provider or {}}
    for name, table in tables.items():
        with found.collecting():
            where = "provider" if file.providers is None else f"providers.{name}"
            build_provider(table, seed=0, where=where)
    found.refuse()
    return dict(tables)
