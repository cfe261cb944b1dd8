"""Which upstreams may serve which model, for a scheduler that only knows names."""

from collections.abc import Iterable
from dataclasses import dataclass

from penstock.core.settings import fits

MOST_NAMES = 500
"""Distinct model names that get a service-time fit of their own; callers choose the names, so
without a bound they would choose how much memory we use."""


Patterns = tuple[str, ...]
"""Model patterns of one upstream, as the scheduler's settings hold them.

They stand as `dialect/model`, because one model name may be served in either dialect and a
request must not go to an upstream that does not speak its own.
"""


def patterns(dialect: str, models: Iterable[str]) -> Patterns:
    """Return the core's `models` for one upstream."""
    return tuple(f"{dialect}/{model}" for model in models)


def serves(served: Patterns, name: str) -> bool:
    """Return whether a model, as `dialect/model`, falls under one of the patterns."""
    return any(fits(pattern, name) for pattern in served)


@dataclass(frozen=True, slots=True)
class Target:
    """A model as the scheduler knows it.

    Attributes:
        name: the scheduler's name of it.
        needs_caller_key: whether an upstream that may get the request uses the caller's key.

    """

    name: str
    needs_caller_key: bool


class Routing:
    """Turns a caller's model into the name that the scheduler knows."""

    def __init__(
        self, served: Iterable[tuple[Patterns, bool]], limited: Iterable[str] = ()
    ) -> None:
        """Take every upstream's patterns, and whether it wants the caller's key.

        `limited` are names that have limits of their own: they are always told apart.
        """
        self._served = tuple(served)
        self._limited = frozenset(limited)
        self._known: dict[tuple[str, str], Target] = {}

    def resolve(self, dialect: str, model: str) -> Target | None:
        """Return the model's target, or None if no upstream serves it."""
        known = self._known.get((dialect, model))
        if known is not None:
            return known
        name = f"{dialect}/{model}"
        fitting = [(served, wants) for served, wants in self._served if serves(served, name)]
        if not fitting:
            return None
        needs_key = any(wants for _, wants in fitting)
        if len(self._known) >= MOST_NAMES and name not in self._limited:
            # No fit of its own any more: it shares that of the pattern it falls under, unless
            # other upstreams serve that pattern's text.
            shared = _shared_name(name, fitting)
            return Target(shared if self._same_upstreams(shared, fitting) else name, needs_key)
        target = self._known[dialect, model] = Target(name, needs_key)
        return target

    def _same_upstreams(self, name: str, fitting: list[tuple[Patterns, bool]]) -> bool:
        those = [served for served, _ in self._served if serves(served, name)]
        return those == [served for served, _ in fitting]


def _shared_name(name: str, fitting: list[tuple[Patterns, bool]]) -> str:
    return next(pattern for pattern in fitting[0][0] if fits(pattern, name))
