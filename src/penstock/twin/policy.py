"""Another configuration, as a few tables of penstock.toml that are laid over the one that holds."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any

from pydantic import Field

from penstock.core.model import TrafficClass
from penstock.core.settings import PolicySpec, Settings, UpstreamSettings
from penstock.errors import ConfigError
from penstock.schema.policies import (
    AllocationPolicy,
    CapacityPolicy,
    OrderingPolicy,
    OverloadPolicy,
)
from penstock.schema.problem import refusal
from penstock.schema.reading import read
from penstock.schema.types import (
    Complaints,
    Count,
    Items,
    Label,
    PerMinute,
    Share,
    Table,
    Tokens,
    Weight,
)

_STACK = ("allocation", "ordering", "overload", "capacity")
_Usd = Annotated[float, Field(ge=0, le=1e6)]
_Speed = Annotated[float, Field(ge=0.01, le=100)]


class SchedulerChange(Table):
    """Keys of `[scheduler]`."""

    allocation: AllocationPolicy | None = Field(None, description="Which class sends next.")
    ordering: OrderingPolicy | None = Field(None, description="Which request within a class.")
    overload: OverloadPolicy | None = Field(None, description="Admit, defer or shed.")
    capacity: CapacityPolicy | None = Field(None, description="How much may be in flight.")
    queue_limit: Count | None = Field(None, description="How many requests may wait in all.")
    sticky: bool | None = Field(None, description="Keep a conversation on one upstream.")
    tenant_turns: bool | None = Field(None, description="Whether tenants take turns in a class.")
    retry_share: Share | None = Field(None, description="Attempts beyond the first.")


class ClassChange(Table):
    """A class of the configuration, by its name."""

    name: Label = Field(description="Which one.", examples=["interactive"])
    weight: Weight | None = Field(None, description="Its share of tokens under contention.")
    hopeless: str | None = Field(None, pattern="^(serve|refuse)$", description="serve or refuse.")
    queue_limit: Count | None = Field(None, description="How many may wait.")
    queue_limit_tokens: Tokens | None = Field(None, description="Predicted tokens that may wait.")


class LimitsChange(Table):
    """Limits that the upstream's terms state."""

    requests_per_min: PerMinute | None = Field(None, description="Requests in any 60 s.")
    tokens_per_min: PerMinute | None = Field(None, description="All tokens in any 60 s.")
    input_tokens_per_min: PerMinute | None = Field(None, description="Input tokens in any 60 s.")
    output_tokens_per_min: PerMinute | None = Field(None, description="Output tokens in any 60 s.")


class UpstreamChange(Table):
    """An upstream of the configuration by its name, or one more."""

    name: Label = Field(description="Which one, or the name of one more.", examples=["default"])
    like: Label | None = Field(
        None, description="One more provider, of another account: as this upstream is."
    )
    speed: _Speed = Field(
        1.0, description="So many times as fast as what was fitted, such as 0.5 for a cheaper tier."
    )
    capacity: CapacityPolicy | None = Field(None, description="Its own window policy.")
    limits: LimitsChange | None = Field(None, description="What its terms state.")
    input_usd_per_mtok: _Usd | None = Field(
        None, description="Price of a million input tokens, in place of the log's."
    )
    output_usd_per_mtok: _Usd | None = Field(None, description="Of a million output tokens.")


class Policy(Table):
    """What is different; everything else stays as it is."""

    scheduler: SchedulerChange = SchedulerChange()
    classes: Items[ClassChange] = ()
    upstreams: Items[UpstreamChange] = ()

    def complaints(self) -> Complaints:
        """Refuse one that changes nothing."""
        if not self.model_fields_set:
            yield "", "changes nothing: it must have scheduler, classes or upstreams"

    def table(self) -> dict[str, Any]:
        """Return it as a file has it: the keys that were set."""
        found: dict[str, Any] = plain_of(self)
        return found

    def settings(self, held: Settings) -> Settings:
        """Return the settings with this laid over them.

        Raises:
            ConfigError: it names a class or an upstream that there is not.

        """
        given = _given(self.scheduler, SchedulerChange)
        stack = replace(held.stack, **{k: v for k, v in given.items() if k in _STACK})
        rest = {k: v for k, v in given.items() if k not in _STACK}
        return replace(
            held, stack=stack, classes=self._classes(held), upstreams=self._upstreams(held), **rest
        )

    def models(self, providers: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
        """Return the providers' tables with this laid over them."""
        found = {name: dict(table) for name, table in providers.items()}
        for change in self.upstreams:
            table = found.get(change.like or change.name)
            if table is not None:
                found[change.name] = _faster(table, change.speed)
        return found

    def prices(self, held: Mapping[str, tuple[float, float]]) -> dict[str, tuple[float, float]]:
        """Return what a token of input and of output costs in USD, by upstream."""
        found = dict(held)
        for change in self.upstreams:
            before = held.get(change.like or change.name, (0.0, 0.0))
            new = (change.input_usd_per_mtok, change.output_usd_per_mtok)
            found[change.name] = (
                before[0] if new[0] is None else new[0] / 1e6,
                before[1] if new[1] is None else new[1] / 1e6,
            )
        return found

    def _classes(self, held: Settings) -> tuple[TrafficClass, ...]:
        changes = {change.name: change for change in self.classes}
        _known(changes, [each.name for each in held.classes], "classes")
        return tuple(
            replace(each, **_given(changes[each.name], ClassChange, "name"))
            if each.name in changes
            else each
            for each in held.classes
        )

    def _upstreams(self, held: Settings) -> tuple[UpstreamSettings, ...]:
        found = {each.name: each for each in held.upstreams}
        for change in self.upstreams:
            _known([change.like or change.name], list(found), "upstreams")
            base = replace(found[change.like or change.name], name=change.name)
            limits = base.limits
            if change.limits is not None:
                limits = replace(limits, **_given(change.limits, LimitsChange))
            capacity = change.capacity or base.capacity
            found[change.name] = replace(base, limits=limits, capacity=capacity)
        return tuple(found.values())


def read_policy(table: Mapping[str, Any], *, where: str) -> Policy:
    """Return the policy.

    Raises:
        ConfigError: a key is unknown or has an impossible value; the text names all.

    """
    reading = read(Policy, table)
    if reading.problems or reading.table is None:
        raise refusal(where, reading.problems)
    return reading.table


def plain_of(value: Any) -> Any:
    """Return a table's keys that were set, or a value of one, as a file has them."""
    if isinstance(value, Table):
        return {name: plain_of(getattr(value, name)) for name in sorted(value.model_fields_set)}
    if isinstance(value, tuple):
        return [plain_of(each) for each in value]
    if isinstance(value, PolicySpec):
        return {"kind": value.kind, **value.options} if value.options else value.kind
    return value


def _given(table: Table, kind: type[Table], *without: str) -> dict[str, Any]:
    """Return the keys that were set."""
    found = {name: getattr(table, name) for name in kind.model_fields if name not in without}
    return {name: value for name, value in found.items() if value is not None}


def _known(names: Any, known: list[str], what: str) -> None:
    for name in names:
        if name not in known:
            raise ConfigError(f"{what}: there is no {name!r} in the log: it has {', '.join(known)}")


def _faster(table: Mapping[str, Any], speed: float) -> dict[str, Any]:
    """Return a provider that is so many times as fast."""
    if speed == 1.0:
        return dict(table)
    times = {"tokens_per_s": speed, "prefill_tokens_per_s": speed}
    times |= dict.fromkeys(
        ("ttft_s", "base_s", "s_per_token", "iteration_base_s", "iteration_per_seq_s"), 1.0 / speed
    )
    return {
        key: value * times[key] if key in times and value is not None else value
        for key, value in table.items()
    }
