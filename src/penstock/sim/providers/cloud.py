"""`cloud`: capacity shared with traffic that is not ours and that nobody tells us of."""

import math
from collections.abc import Iterator
from itertools import pairwise
from typing import Any, Literal

from penstock.sim.calls import standard_normal, unit
from penstock.sim.params import count, not_negative, positive
from penstock.sim.providers.changes import Change
from penstock.sim.providers.places import SharedParams, SlotsParams, Variation

_OUTSIDE_STREAM = 0x4F55
_STEPS = 12
"""Into how many steps `outside_s` is cut where the level moves all the time."""


class CloudParams(Variation):
    """Others take a share of the capacity that moves; what is left is ours.

    Attributes:
        capacity: requests at full speed if nobody else were there.
        outside: how the others' share u moves between 0 and `outside_share`. `none`: u is 0.
            `walk`: a random walk that drifts back to the middle and forgets in `outside_s`.
            `daily`: a cosine of the period `outside_s`, from 0. `sudden`: it jumps anywhere,
            after gaps drawn exponentially with the mean `outside_s`.
        sigma: of a lognormal factor of median 1 on each job's whole service time.
        queue: whether there are capacity x (1 - u) places and a hidden queue (as in `slots`), or
            everybody shares them (as in `shared`).

    Source:
        PAPER.md's provider models; the processes of u and the constants are ours.

    """

    capacity: int = count(16)
    tokens_per_s: float = positive(200.0, low=1e-3)
    ttft_s: float = not_negative(0.15)
    outside: Literal["none", "walk", "daily", "sudden"] = "none"
    outside_share: float = not_negative(0.6, high=1.0)
    outside_s: float = positive(60.0, low=1e-3)
    sigma: float = not_negative(0.2, high=5.0)
    queue: bool = True

    def left(self, taken: float) -> SlotsParams | SharedParams:
        """Return what is left for us while others take this share: room for one at least."""
        places = max(1, round(self.capacity * (1.0 - taken)))
        common: dict[str, Any] = {
            "tokens_per_s": self.tokens_per_s,
            "ttft_s": self.ttft_s,
            "jitter": self.sigma,
            "stragglers": self.stragglers,
            "prefill_tokens_per_s": self.prefill_tokens_per_s,
            "cached_share": self.cached_share,
        }
        if self.queue:
            return SlotsParams(slots=places, **common)
        return SharedParams(capacity=places, **common)


def moves(
    params: CloudParams, changes: tuple[Change[CloudParams], ...], *, seed: int
) -> Iterator[Change[SlotsParams | SharedParams]]:
    """Yield what is left for us over time; without end if others come and go.

    What a change says of the others' traffic begins with it.
    """
    spans = [Change(0.0, params), *changes, Change(math.inf, params)]
    for span, after in pairwise(spans):
        yield Change(span.at_s, span.params.left(0.0))
        for since_s, taken in _levels(span.params, seed):
            if span.at_s + since_s >= after.at_s:
                break
            yield Change(span.at_s + since_s, span.params.left(taken))


def _levels(params: CloudParams, seed: int) -> Iterator[tuple[float, float]]:
    """Yield (seconds from the start, share that others take), one after the other."""
    most, every_s = params.outside_share, params.outside_s
    step_s = every_s / _STEPS
    at, level, number = 0.0, 0.5, 0
    while params.outside != "none":
        number += 1
        if params.outside == "sudden":
            at -= every_s * math.log(unit(seed, _OUTSIDE_STREAM, 2 * number))
            level = unit(seed, _OUTSIDE_STREAM, 2 * number + 1)
        elif params.outside == "daily":
            at = number * step_s
            level = 0.5 - 0.5 * math.cos(2.0 * math.pi * number / _STEPS)
        else:
            at = number * step_s
            level += (0.5 - level) / _STEPS + 0.12 * standard_normal(seed, _OUTSIDE_STREAM, number)
            level = min(1.0, max(0.0, level))
        yield at, most * level
