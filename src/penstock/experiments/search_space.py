"""Which stacks a search in hindsight tries."""

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any

from penstock.experiments.job import Table

_LAYERS = ("allocation", "ordering", "overload", "capacity")
_ROOMY = 256.0
"""A window that never binds, where a window of tokens does the work."""


@dataclass(frozen=True, slots=True)
class Stacks:
    """The stacks that regret.toml's `search` table spans."""

    table: Table

    def combinations(self) -> list[dict[str, Any]]:
        """Return every combination of the three upper layers, over the default window policy."""
        return [
            {"allocation": allocation, "ordering": ordering, "overload": overload}
            for allocation, ordering, overload in product(
                self.table["allocations"], self.table["orderings"], self.table["overloads"]
            )
        ]

    def windows(self, policies: Iterable[Table]) -> list[dict[str, Any]]:
        """Return the policies with each of the fixed windows, of requests and of tokens."""
        capacities: list[dict[str, Any]] = [
            {"kind": "fixed", "window": window} for window in self.table["windows"]
        ]
        capacities += [
            {"kind": "fixed", "window": _ROOMY, "window_tokens": tokens}
            for tokens in self.table["window_tokens"]
        ]
        return [{**policy, "capacity": capacity} for policy in policies for capacity in capacities]

    def parameters(self, policies: Iterable[Table]) -> list[dict[str, Any]]:
        """Return the policies with each option of each of their layers, one at a time."""
        return [other for policy in policies for other in self._with_options(policy)]

    def _with_options(self, policy: Table) -> Iterator[dict[str, Any]]:
        for layer in _LAYERS[:-1]:
            kind = kind_of(policy, layer)
            for options in self.table["options"].get(kind, ()):
                yield {**policy, layer: {"kind": kind, **options}}


def kind_of(policy: Table, layer: str) -> str | None:
    """Return the name of a layer's policy, or None where it is the default one."""
    spec = policy.get(layer)
    return str(spec["kind"]) if isinstance(spec, Mapping) else spec


def stack_name(policy: Table) -> str:
    """Return a short name that tells one stack from any other."""
    if not policy:
        return "default"
    return " / ".join(_spec_text(policy[layer]) for layer in _LAYERS if layer in policy)


def _spec_text(spec: Any) -> str:
    if not isinstance(spec, Mapping):
        return str(spec)
    options = {name: value for name, value in spec.items() if name != "kind"}
    if options.get("window") == _ROOMY and "window_tokens" in options:
        del options["window"]
    if not options:
        return str(spec["kind"])
    listed = ", ".join(f"{name} {_value(value)}" for name, value in options.items())
    return f"{spec['kind']} ({listed})"


def _value(value: Any) -> str:
    return f"{value:g}" if isinstance(value, int | float) else json.dumps(value)
