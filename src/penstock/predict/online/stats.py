"""How the predictor is doing, over a window, per route: cheap enough for every request."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.core.model import TokenEstimate, bucket_of

# No caller's label has brackets (x-penstock-route), so neither can be mistaken for a route.
ALL_ROUTES = "(all)"
OTHER_ROUTES = "(other)"
_RANKED_AGAINST = 16  # each reply is compared with so many before it
_IDLE_AFTER = 2000  # predictions without one of its own, after which a route's place is free


@dataclass(frozen=True, slots=True)
class RouteFigures:
    """Figures of one route over its window; shares are None while the window is empty.

    Attributes:
        replies: how many settled replies the window holds.
        bucket_accuracy: share of replies in the bucket of their p50.
        pair_ranking: share of recent pairs of different length ordered right by p50, ties half.
        p90_coverage: share of replies that were at most p90.
        fallback_rate: share of predictions that were the fallback.

    """

    replies: int
    bucket_accuracy: float | None
    pair_ranking: float | None
    p90_coverage: float | None
    fallback_rate: float | None


@dataclass(slots=True)
class _Route:
    hits: deque[bool]
    covers: deque[bool]
    pairs: deque[float]
    falls: deque[bool]
    last: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=_RANKED_AGAINST))
    used_at: int = 0

    def settle(self, tokens: float, estimate: TokenEstimate) -> None:
        self.hits.append(bucket_of(tokens) == bucket_of(estimate.p50_tokens))
        self.covers.append(tokens <= estimate.p90_tokens)
        for length, p50 in self.last:
            if length != tokens:
                gap = (tokens - length) * (estimate.p50_tokens - p50)
                self.pairs.append(1.0 if gap > 0 else 0.5 if gap == 0 else 0.0)
        self.last.append((tokens, estimate.p50_tokens))

    def figures(self) -> RouteFigures:
        return RouteFigures(
            replies=len(self.hits),
            bucket_accuracy=_mean(self.hits),
            pair_ranking=_mean(self.pairs),
            p90_coverage=_mean(self.covers),
            fallback_rate=_mean(self.falls),
        )


class PredictorStats:
    """Windows of hits and misses for all routes together and for each of a few.

    Routes beyond `routes_max` share `OTHER_ROUTES`, so that labels in metrics stay bounded
    whatever callers send. A route keeps its place as long as it has traffic; the place of one
    that had none among the last `idle_after` predictions goes to the next newcomer. (Always to
    replace the one longest unused would let labels used once push out those in daily use.)
    """

    def __init__(
        self, *, window: int = 500, routes_max: int = 20, idle_after: int = _IDLE_AFTER
    ) -> None:
        """Start empty."""
        self._window = window
        self._routes_max = routes_max
        self._idle_after = idle_after
        self._predictions = 0
        self._all = self._new()
        self._other: _Route | None = None
        self._routes: OrderedDict[str, _Route] = OrderedDict()  # the longest unused first
        self._one_at_a_time = threading.Lock()

    def predicted(self, route: str, *, fell_back: bool) -> None:
        """Count a prediction."""
        with self._one_at_a_time:
            self._predictions += 1
            for entry in self._entries(route):
                entry.falls.append(fell_back)

    def settled(self, route: str, estimate: TokenEstimate, output_tokens: int) -> None:
        """Count how good an estimate was, now that the reply is in."""
        tokens = float(max(1, output_tokens))
        with self._one_at_a_time:
            for entry in self._entries(route):
                entry.settle(tokens, estimate)

    def figures(self) -> Mapping[str, RouteFigures]:
        """Return the figures by route; `ALL_ROUTES` holds all together."""
        with self._one_at_a_time:
            named = {**self._routes, ALL_ROUTES: self._all}
            if self._other is not None:
                named[OTHER_ROUTES] = self._other
            return {name: entry.figures() for name, entry in named.items()}

    def _entries(self, route: str) -> tuple[_Route, _Route]:
        return self._all, self._entry(route)

    def _entry(self, route: str) -> _Route:
        entry = self._routes.get(route)
        if entry is None:
            if not self._has_place():
                if self._other is None:
                    self._other = self._new()
                return self._other
            entry = self._routes[route] = self._new()
        self._routes.move_to_end(route)
        entry.used_at = self._predictions
        return entry

    def _has_place(self) -> bool:
        if len(self._routes) < self._routes_max:
            return True
        name, oldest = next(iter(self._routes.items()))
        if self._predictions - oldest.used_at <= self._idle_after:
            return False
        del self._routes[name]
        return True

    def _new(self) -> _Route:
        size = self._window
        return _Route(
            deque(maxlen=size), deque(maxlen=size), deque(maxlen=size * 4), deque(maxlen=size)
        )


def _mean(values: deque[bool] | deque[float]) -> float | None:
    return sum(values) / len(values) if values else None
