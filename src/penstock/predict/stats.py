"""How the predictor is doing, over a window, per route: cheap enough for every request."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.core.model import TokenEstimate, bucket_of

ALL_ROUTES = ""
OTHER_ROUTES = "other"
_RANKED_AGAINST = 16  # each reply is compared with so many before it


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
    """Windows of hits and misses for all routes together and for each of the first few.

    Routes beyond `routes_max` share the name "other", so that labels in metrics stay bounded
    whatever callers send.
    """

    def __init__(self, *, window: int = 500, routes_max: int = 20) -> None:
        """Start empty."""
        self._window = window
        self._routes_max = routes_max
        self._routes: OrderedDict[str, _Route] = OrderedDict()
        self._one_at_a_time = threading.Lock()

    def predicted(self, route: str, *, fell_back: bool) -> None:
        """Count a prediction."""
        with self._one_at_a_time:
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
            return {name: entry.figures() for name, entry in self._routes.items()}

    def _entries(self, route: str) -> tuple[_Route, _Route]:
        return self._entry(ALL_ROUTES), self._entry(route or OTHER_ROUTES)

    def _entry(self, name: str) -> _Route:
        entry = self._routes.get(name)
        if entry is None:
            if len(self._routes) > self._routes_max and name != OTHER_ROUTES:
                return self._entry(OTHER_ROUTES)
            size = self._window
            entry = self._routes[name] = _Route(
                deque(maxlen=size),
                deque(maxlen=size),
                deque(maxlen=size * 4),
                deque(maxlen=size),
            )
        return entry


def _mean(values: deque[bool] | deque[float]) -> float | None:
    return sum(values) / len(values) if values else None
