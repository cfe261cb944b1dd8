"""An upstream's attempts as arrays, and the clocks on which a provider may serve them."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from penstock.twin.history import Attempt, Floats


@dataclass(frozen=True, slots=True)
class AttemptTimes:
    """Attempts that were let in, in order of sending.

    Attributes:
        sent, first, ended: driver seconds; `first` is nan where no first token was seen, `ended`
            inf where the attempt has not ended.
        output, prompt: tokens; of a prompt those that no cache held. context: whole prompts.
        whole: whether the reply is complete.
        ahead: how many flew when each was sent, itself counted.
        times, flying: from each time on so many flew.
        gone: the ends, in order.
        calls: whose attempts they are, as places in `History.calls`.

    """

    sent: Floats
    first: Floats
    ended: Floats
    output: Floats
    prompt: Floats
    context: Floats
    whole: np.ndarray
    ahead: Floats
    times: Floats
    flying: Floats
    gone: Floats
    calls: np.ndarray

    def starts(self, places: float) -> Floats:
        """Return when each was taken out of a first-come queue before so many places.

        Nan where the log ends before.

        Source:
            The k-th in a queue starts at the k-th end after it came; the ends are those seen.

        """
        behind = np.maximum(0, self.ahead - places)
        nth = np.searchsorted(self.gone, self.sent, side="right") + behind - 1
        padded = np.append(self.gone, math.nan)
        nth = np.minimum(nth, len(self.gone)).astype(np.int64)
        return np.where(behind > 0, padded[nth], self.sent)

    def clock(self, speed: Callable[[Floats], Floats]) -> "PiecewiseClock":
        """Return the clock that goes at this speed while so many fly."""
        return PiecewiseClock(self.times, speed(np.maximum(self.flying, 1.0)))

    def read_during(self, starts: Floats, ends: Floats, clock: "PiecewiseClock") -> Floats:
        """Return how many prompt tokens were read between these times, each one's own included.

        Each counts as much as the clock goes in the time that it takes of all.
        """
        known = np.isfinite(starts)
        order = np.argsort(starts[known], kind="stable")
        begun = starts[known][order]
        paces = clock.pace(begun)
        read = np.concatenate([[0.0], np.cumsum((self.prompt[known] * paces)[order])])
        first = np.searchsorted(begun, starts, side="left")
        last = np.searchsorted(begun, ends, side="left")
        return np.where(known, read[np.maximum(last, first)] - read[first], self.prompt)

    def tokens_in_hand(self) -> tuple[int, int]:
        """Return the tokens of the largest call, prompt and reply, and the most of all in hand."""
        tokens = self.context + self.output
        order = np.argsort(self.ended, kind="stable")
        gone = np.concatenate([[0.0], np.cumsum(tokens[order])])
        ended = np.searchsorted(self.ended[order], self.sent, side="right")
        return int(tokens.max()), int((np.cumsum(tokens) - gone[ended]).max())

    def until(self, at: float) -> "AttemptTimes":
        """Return what could be known by then."""
        seen = self.sent < at
        ended = np.where(self.ended <= at, self.ended, math.inf)
        return _arranged(
            self.sent[seen], self.first[seen], ended[seen], self.output[seen], self.prompt[seen],
            self.context[seen], (self.whole & (self.ended <= at))[seen], self.calls[seen],
        )  # fmt: skip


class PiecewiseClock:
    """A clock whose speed is constant between the given times.

    Attributes:
        shows: what it shows at each of the times.

    """

    def __init__(self, times: Floats, speeds: Floats) -> None:
        self._times = np.append(times, times[-1] + 1e6)
        steps = np.diff(self._times) * np.maximum(speeds, 1e-12)
        self.shows = np.concatenate([[0.0], np.cumsum(steps)])

    def at(self, when: Floats) -> Floats:
        """Return what it shows at these times."""
        return np.asarray(np.interp(when, self._times, self.shows))

    def pace(self, when: Floats) -> Floats:
        """Return its speed at these times."""
        place = np.searchsorted(self._times, when, side="right") - 1
        steps = np.diff(self.shows) / np.diff(self._times)
        return np.asarray(steps[place.clip(0, len(steps) - 1)])

    def when(self, shown: Floats) -> Floats:
        """Return when it shows these."""
        return np.asarray(np.interp(shown, self.shows, self._times))


def flights_of(attempts: list[Attempt]) -> AttemptTimes:
    """Return one upstream's attempts; those refused at its door were never inside."""
    inside = [a for a in attempts if not a.refused]
    ended = np.array([a.ended_at for a in inside], dtype=float)
    return _arranged(
        np.array([a.sent_at for a in inside], dtype=float),
        np.array([a.first_at for a in inside], dtype=float),
        np.where(np.isnan(ended), math.inf, ended),
        np.array([a.output_tokens for a in inside], dtype=float),
        np.array([a.prompt_tokens - (a.cached_tokens or 0) for a in inside], dtype=float),
        np.array([a.prompt_tokens for a in inside], dtype=float),
        np.array([a.end == "completed" for a in inside], dtype=bool),
        np.array([a.call for a in inside], dtype=np.int64),
    )


def _arranged(
    sent: Floats,
    first: Floats,
    ended: Floats,
    output: Floats,
    prompt: Floats,
    context: Floats,
    whole: np.ndarray,
    calls: np.ndarray,
) -> AttemptTimes:
    gone = np.sort(ended[np.isfinite(ended)])
    ahead = np.arange(1.0, len(sent) + 1) - np.searchsorted(gone, sent, side="right")
    times = np.unique(np.concatenate([sent, gone])) if len(sent) else np.zeros(1)
    begun = np.searchsorted(sent, times, side="right")
    flying = (begun - np.searchsorted(gone, times, side="right")).astype(float)
    return AttemptTimes(
        sent, first, ended, output, prompt, context, whole, ahead, times, flying, gone, calls
    )
