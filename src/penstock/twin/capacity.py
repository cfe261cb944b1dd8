"""Capacity over time: the cheapest path of numbers of places through stretches of the log."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.twin.flights import AttemptTimes
from penstock.twin.history import Floats

REPLIES_EACH = 20
MOST_STRETCHES = 40
_SWITCH = 8.0
"""A move must explain as much as so many replies' mean error: fewer are luck."""


@dataclass(frozen=True, slots=True)
class Path:
    """Numbers of places over time.

    Attributes:
        since: when each holds from; the first from the start on.
        places: the numbers.

    """

    since: tuple[float, ...]
    places: tuple[int, ...]

    def at(self, times: Floats) -> Floats:
        """Return how many places there are at these times."""
        starts = np.array(self.since[1:])
        return np.array(self.places, dtype=float)[np.searchsorted(starts, times, side="right")]

    def times(self, factor: float) -> "Path":
        """Return the same moves of so many times the places."""
        return Path(self.since, tuple(max(1, round(factor * n)) for n in self.places))

    def changes(self, key: str) -> list[dict[str, Any]]:
        """Return the moves as a provider's table has them."""
        moves = zip(self.since[1:], self.places[1:], strict=True)
        return [{"at_s": at, key: places} for at, places in moves]


def path_of(
    flights: AttemptTimes, numbers: Sequence[int], errors: Callable[[int], Floats]
) -> Path | None:
    """Return the path that tells the ends of replies best; None if it is one number throughout.

    Args:
        flights: the attempts.
        numbers: that may be.
        errors: of each complete reply, if there were so many places all the time.

    Source:
        Viterbi (1967): least total error, plus a price for each move.

    """
    sent = flights.sent[flights.whole]
    stretches = min(MOST_STRETCHES, len(sent) // REPLIES_EACH)
    if stretches < 2 or len(numbers) < 2:
        return None
    pieces = np.array_split(np.arange(len(sent)), stretches)
    table = np.stack([errors(number) for number in numbers], axis=1)
    costs = np.stack([table[piece].sum(axis=0) for piece in pieces])
    price = _SWITCH * float(table.mean(axis=0).min())
    chosen = _cheapest(costs, price)
    since, places, cut = [0.0], [numbers[chosen[0]]], -1
    for nth in range(1, len(pieces)):
        old, new = chosen[nth - 1], chosen[nth]
        if new != old:  # after the move before it: both may be found in the stretch between them
            near = np.arange(max(pieces[nth - 1][0], cut + 1), pieces[nth][-1] + 1)
            cut = near[_cut(table[near, old], table[near, new])]
            at = float(sent[cut])
            if at > since[-1]:
                since.append(at)
                places.append(numbers[new])
            else:  # sent at the same instant
                places[-1] = numbers[new]
    return Path(tuple(since), tuple(places)) if len(since) > 1 else None


def _cut(before: Floats, after: Floats) -> int:
    """Return from which reply on the errors after a move tell more than those before it."""
    total = np.cumsum(before) - np.cumsum(after)
    return int(total.argmin()) + 1 if total.min() < 0 and total.argmin() + 1 < len(total) else 0


def _cheapest(costs: Floats, price: float) -> list[int]:
    """Return the number of the place in each row."""
    total = costs[0]
    back = []
    for row in costs[1:]:
        stay = total <= total.min() + price
        back.append(np.where(stay, np.arange(len(total)), int(total.argmin())))
        total = np.minimum(total, total.min() + price) + row
    chosen = [int(total.argmin())]
    for row in reversed(back):
        chosen.append(int(row[chosen[-1]]))
    return chosen[::-1]
