"""How the predictor is doing, over a window, per route: cheap enough for every request."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from penstock.core.model import BUCKET_UPPER_TOKENS, TokenEstimate

if TYPE_CHECKING:  # only the figures need it, and a dashboard keeps windows before any is wanted
    import numpy as np
    from numpy.typing import NDArray

# No caller's label has brackets (x-penstock-route), so neither can be mistaken for a route.
ALL_ROUTES = "(all)"
OTHER_ROUTES = "(other)"
_RANKED_AGAINST = 16  # each reply is compared with so many before it
_BORDERS = [upper for _, upper in BUCKET_UPPER_TOKENS[:-1]]
_WINDOW = 500  # replies and predictions that each route's figures are of
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
class _RouteWindow:
    """What the figures of one route are worked out from when somebody looks."""

    settled: deque[tuple[float, float, float]]  # real tokens, p50, p90
    fell_back: deque[bool]
    used_at: int = 0

    def figures(self) -> RouteFigures:
        import numpy as np

        tokens, p50, p90 = np.array(self.settled, float).reshape(-1, 3).T
        return RouteFigures(
            replies=tokens.size,
            bucket_accuracy=_mean(bucket_numbers(tokens) == bucket_numbers(p50)),
            pair_ranking=_mean(_pairs_ranked(tokens, p50)),
            p90_coverage=_mean(tokens <= p90),
            fallback_rate=_mean(np.array(self.fell_back)),
        )


def bucket_numbers(tokens: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return the number of the bucket that holds each count of output tokens."""
    import numpy as np

    numbers: NDArray[np.intp] = np.searchsorted(_BORDERS, tokens)
    return numbers


def _pairs_ranked(tokens: NDArray[np.float64], p50: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 for each recent pair of different length that p50 orders right, ties half, else 0.

    Each reply is compared with the `_RANKED_AGAINST` before it.
    """
    import numpy as np

    gaps, guesses = (
        np.concatenate([values[back:] - values[:-back] for back in range(1, _RANKED_AGAINST + 1)])
        for values in (tokens, p50)
    )
    ranked: NDArray[np.float64] = 0.5 + 0.5 * np.sign(gaps[gaps != 0] * guesses[gaps != 0])
    return ranked


class PredictorStats:
    """Windows of hits and misses for all routes together and for each of a few.

    Routes beyond `routes_max` share `OTHER_ROUTES`, so that labels in metrics stay bounded
    whatever callers send. A route keeps its place as long as it has traffic; the place of one
    that had none among the last `idle_after` predictions goes to the next newcomer. (Always to
    replace the one longest unused would let labels used once push out those in daily use.)
    """

    def __init__(self, *, routes_max: int = 20, idle_after: int = _IDLE_AFTER) -> None:
        """Start empty."""
        self._routes_max = routes_max
        self._idle_after = idle_after
        self._predictions = 0
        self._all = self._new()
        self._other: _RouteWindow | None = None
        self._routes: OrderedDict[str, _RouteWindow] = OrderedDict()  # the longest unused first
        self._one_at_a_time = threading.Lock()

    def predicted(self, route: str, *, fell_back: bool) -> None:
        """Count a prediction."""
        with self._one_at_a_time:
            self._predictions += 1
            for entry in self._entries(route):
                entry.fell_back.append(fell_back)

    def settled(self, route: str, estimate: TokenEstimate, output_tokens: int) -> None:
        """Count how good an estimate was, now that the reply is in."""
        settled = (float(max(1, output_tokens)), estimate.p50_tokens, estimate.p90_tokens)
        with self._one_at_a_time:
            for entry in self._entries(route):
                entry.settled.append(settled)

    def figures(self) -> Mapping[str, RouteFigures]:
        """Return the figures by route; `ALL_ROUTES` holds all together."""
        with self._one_at_a_time:
            named = {**self._routes, ALL_ROUTES: self._all}
            if self._other is not None:
                named[OTHER_ROUTES] = self._other
            return {name: entry.figures() for name, entry in named.items()}

    def _entries(self, route: str) -> tuple[_RouteWindow, _RouteWindow]:
        return self._all, self._entry(route)

    def _entry(self, route: str) -> _RouteWindow:
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
        """Return whether one more route may be kept, if need be in place of one long unused."""
        if len(self._routes) < self._routes_max:
            return True
        name, oldest = next(iter(self._routes.items()))
        if self._predictions - oldest.used_at <= self._idle_after:
            return False
        del self._routes[name]
        return True

    def _new(self) -> _RouteWindow:
        return _RouteWindow(deque(maxlen=_WINDOW), deque(maxlen=_WINDOW))


def _mean(values: NDArray[Any]) -> float | None:
    return float(values.mean()) if values.size else None
