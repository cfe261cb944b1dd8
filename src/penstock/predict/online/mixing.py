"""Which of several experts to believe, by how they did lately on this route."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from penstock.predict.online.groups import KeptGroups

_ERROR_MAX = 2.0  # log tokens: what is booked of one reply at most
_FADE = 0.98  # what an old loss keeps per reply of its group
_EVERYWHERE = 0.2  # how much of the losses over all groups a group takes as its own


class ExpertMix:
    """Weights experts by their discounted absolute errors, per group and over all groups.

    Source:
        Exponentially weighted forecasters; Cesa-Bianchi & Lugosi 2006, with discounting.

    """

    def __init__(self, start_losses: Sequence[float], *, eagerness: float) -> None:
        """Start with losses already on the books, which say whom to believe at first.

        Args:
            start_losses: one per expert, in summed log error.
            eagerness: how decisive a difference in summed losses is.

        """
        self._start = list(start_losses)
        self._eagerness = eagerness
        self.total = [0.0] * len(self._start)
        self.groups: KeptGroups[list[float]] = KeptGroups()

    def weights(self, group: str) -> list[float]:
        """Return the experts' weights, which add up to one."""
        own = self.groups.get(group) or self._start
        losses = [a + _EVERYWHERE * b for a, b in zip(own, self.total, strict=True)]
        least = min(losses)
        raw = [math.exp(-self._eagerness * (loss - least)) for loss in losses]
        total = sum(raw)
        return [weight / total for weight in raw]

    def learn(self, group: str, errors: Sequence[float]) -> None:
        """Book each expert's absolute error, at most `_ERROR_MAX` each."""
        own = self.groups.use(group, lambda: list(self._start))
        for losses in (own, self.total):
            for number, error in enumerate(errors):
                losses[number] = _FADE * losses[number] + min(_ERROR_MAX, error)

    def settle(self, seen: Mapping[str, Sequence[Sequence[float]]]) -> None:
        """Book what each expert's mean error over a whole replay comes to in the long run.

        After a replay the losses are those of its last 50 replies or so, by chance; a model that
        is frozen there would go on with that.

        Args:
            seen: absolute errors per expert, of each reply of each group.

        """
        everyone = [errors for of_group in seen.values() for errors in of_group]
        if everyone:
            self.total = self._in_the_long_run(everyone)
        for key, errors in seen.items():
            if key in self.groups:
                self.groups.put(key, self._in_the_long_run(errors))

    def _in_the_long_run(self, replies: Sequence[Sequence[float]]) -> list[float]:
        """Return the sums that discounted errors stand at if they go on like these."""
        return [
            sum(min(_ERROR_MAX, error) for error in errors) / len(errors) / (1.0 - _FADE)
            for errors in zip(*replies, strict=True)
        ]
