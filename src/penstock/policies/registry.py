"""Which policies there are, by the names that configurations use."""

import inspect
from collections.abc import Callable
from functools import cache, partial
from typing import Any, get_type_hints

from penstock.core.reconfiguration import SchedulerParts
from penstock.core.rule import BrokenRules, Rule
from penstock.core.scheduler import Scheduler
from penstock.core.settings import PolicySpec, Settings, UpstreamSettings
from penstock.core.upstream.ledger import Upstream
from penstock.errors import ConfigError
from penstock.policies.allocation.adaptive_drr import AdaptiveDrr
from penstock.policies.allocation.drr import Drr
from penstock.policies.allocation.fair_queuing import FairQueuing
from penstock.policies.allocation.fifo import Fifo
from penstock.policies.allocation.quota_tiered import QuotaTiered
from penstock.policies.allocation.short_priority import ShortPriority
from penstock.policies.capacity.aimd import Aimd
from penstock.policies.capacity.counting import Unlimited
from penstock.policies.capacity.fixed import Fixed
from penstock.policies.capacity.gradient2 import Gradient2
from penstock.policies.capacity.vegas import Vegas
from penstock.policies.capacity.window.steering import Posterior
from penstock.policies.ordering.by_key import EarliestDeadlineFirst, OldestFirst, ShortestFirst
from penstock.policies.ordering.feasible_set import FeasibleSet
from penstock.policies.overload.always_admit import AlwaysAdmit
from penstock.policies.overload.ladder import (
    cost_ladder,
    reverse_ladder,
    uniform_harsh,
    uniform_mild,
)

Factory = Callable[..., Any]

POLICIES: dict[str, dict[str, Factory]] = {
    "allocation": {
        "adaptive_drr": AdaptiveDrr,
        "drr": Drr,
        "fair_queuing": FairQueuing,
        "short_priority": ShortPriority,
        "quota_tiered": QuotaTiered,
        "fifo": Fifo,
    },
    "ordering": {
        "feasible_set": FeasibleSet,
        "edf": EarliestDeadlineFirst,
        "shortest_first": ShortestFirst,
        "fifo": OldestFirst,
    },
    "overload": {
        "cost_ladder": cost_ladder,
        "uniform_mild": uniform_mild,
        "uniform_harsh": uniform_harsh,
        "reverse_ladder": reverse_ladder,
        "always_admit": AlwaysAdmit,
    },
    "capacity": {
        "posterior": Posterior,
        "fixed": Fixed,
        "unlimited": Unlimited,
        "aimd": Aimd,
        "gradient2": Gradient2,
        "vegas": Vegas,
    },
}


def make(layer: str, spec: PolicySpec, *args: object) -> Any:
    """Return a new policy of a layer.

    Raises:
        ConfigError: no such kind in the layer, an option that the kind does not have, or a value
            that it refuses.

    """
    kinds = POLICIES[layer]
    factory = kinds.get(spec.kind)
    if factory is None:
        raise ConfigError(f"{layer}.kind={spec.kind!r} is not known: choose one of {sorted(kinds)}")
    known, rules = options_of(layer, spec.kind), rules_of(layer, spec.kind)
    broken = []
    for name, value in spec.options.items():
        if name not in known:
            raise ConfigError(
                f"{layer}.{name}={spec.options[name]!r} is not an option of {spec.kind!r}: "
                f"it has {sorted(known) or 'none'}"
            )
        if name in rules and not rules[name].allows(value):
            broken.append((name, value, str(rules[name])))
    try:
        if broken:
            raise BrokenRules(*broken)
        return factory(*args, **spec.options)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{layer} {spec.kind!r}: {error}") from error


def options_of(layer: str, kind: str) -> dict[str, object]:
    """Return a kind's options and their defaults."""
    parameters = inspect.signature(POLICIES[layer][kind]).parameters.values()
    return {p.name: p.default for p in parameters if p.kind is p.KEYWORD_ONLY}


@cache
def annotations_of(layer: str, kind: str) -> dict[str, Any]:
    """Return the types of a kind's options, with their rules."""
    factory = POLICIES[layer][kind]
    made_by = inspect.getattr_static(factory, "__init__") if inspect.isclass(factory) else factory
    return get_type_hints(made_by, include_extras=True)


@cache
def rules_of(layer: str, kind: str) -> dict[str, Rule]:
    """Return the rules of a kind's options, of those that have one by themselves."""
    return {
        name: rule
        for name, hint in annotations_of(layer, kind).items()
        for rule in getattr(hint, "__metadata__", ())
    }


def parts_of(settings: Settings) -> SchedulerParts:
    """Return the policies that the settings name, tried out once.

    Raises:
        ConfigError: a policy or one of its options is not known or impossible.

    """
    stack = settings.stack
    for layer, args in (("allocation", (settings.classes,)), ("ordering", ())):
        make(layer, getattr(stack, layer), *args)  # fail now: they are made at requests
    for upstream in settings.upstreams:
        make("capacity", upstream.capacity or stack.capacity)
    return SchedulerParts(
        overload=make("overload", stack.overload),
        make_allocator=lambda: make("allocation", stack.allocation, settings.classes),
        make_queue=partial(POLICIES["ordering"][stack.ordering.kind], **stack.ordering.options),
        make_upstream=lambda upstream: _upstream(upstream, settings),
    )


def build_scheduler(settings: Settings) -> Scheduler:
    """Return a scheduler with everything wired as the settings say.

    Raises:
        ConfigError: a policy or one of its options is not known or impossible.

    """
    parts = parts_of(settings)
    return Scheduler(
        settings,
        tuple(map(parts.make_upstream, settings.upstreams)),
        overload=parts.overload,
        make_allocator=parts.make_allocator,
        make_queue=parts.make_queue,
        build=parts_of,
    )


def _upstream(upstream: UpstreamSettings, settings: Settings) -> Upstream:
    capacity = make("capacity", upstream.capacity or settings.stack.capacity)
    return Upstream(upstream, capacity, settings.max_pause_s)
