"""Policies as a file names them, checked one by one so that every mistake is told at once."""

from collections.abc import Iterator

from penstock.core.model import TrafficClass
from penstock.core.settings import PolicySpec, Stack
from penstock.proxy.config.models import Config
from penstock.proxy.config.problem import Problem, close_to, shown
from penstock.proxy.config.schema import PolicyTable


def stack_of(config: Config) -> Stack:
    """Return the policies of `[scheduler]`, penstock's own where none is named."""
    table, defaults = config.scheduler, Stack()
    return Stack(
        allocation=spec_of(table.allocation, defaults.allocation),
        ordering=spec_of(table.ordering, defaults.ordering),
        overload=spec_of(table.overload, defaults.overload),
        capacity=spec_of(table.capacity, defaults.capacity),
    )


def spec_of(table: PolicyTable | None, default: PolicySpec) -> PolicySpec:
    """Return a policy as the scheduler takes it."""
    return default if table is None else PolicySpec(table.kind, table.options)


def policy_problems(config: Config, classes: tuple[TrafficClass, ...]) -> list[Problem]:
    """Return what is wrong with any policy, wherever it is named."""
    stack = stack_of(config)
    problems = [
        *_wrong("scheduler.allocation", "allocation", stack.allocation, classes),
        *_wrong("scheduler.ordering", "ordering", stack.ordering),
        *_wrong("scheduler.overload", "overload", stack.overload),
        *_wrong("scheduler.capacity", "capacity", stack.capacity),
    ]
    for index, upstream in enumerate(config.upstreams):
        spec = spec_of(upstream.capacity, stack.capacity)
        if upstream.capacity is not None:
            problems += _wrong(f"upstreams[{index}].capacity", "capacity", spec)
    return problems


def _wrong(place: str, layer: str, spec: PolicySpec, *args: object) -> Iterator[Problem]:
    from penstock.policies.registry import POLICIES, make, options_of

    kinds = POLICIES[layer]
    if spec.kind not in kinds:
        yield Problem(place, shown(place, spec.kind), f"is no policy of {layer}",
                      close_to(spec.kind, kinds))  # fmt: skip
        return
    known = options_of(layer, spec.kind)
    unknown = [name for name in spec.options if name not in known]
    for name in unknown:
        where = f"{place}.{name}"
        cause = close_to(name, known) if known else "it has none"
        yield Problem(where, shown(where, spec.options[name]),
                      f"is no option of {spec.kind}", cause)  # fmt: skip
    if not unknown:
        try:
            make(layer, spec, *args)
        except (ValueError, TypeError) as error:  # policies check their own options
            yield Problem(place, "", str(error))
