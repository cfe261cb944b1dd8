"""What each kind of provider says of an upstream's attempts, given its few numbers.

Nothing is simulated: given who flew when, each kind says when a reply should have ended. What is
left to fit is its service line; without one, least squares find it.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.sim.providers.batching import BatchingParams
from penstock.twin.capacity import Path
from penstock.twin.engine import beside
from penstock.twin.flights import AttemptTimes, PiecewiseClock
from penstock.twin.history import Floats
from penstock.twin.replicas import assigned, starts
from penstock.twin.service_line import Line, fit_line

MOST_ERROR = 2.0
"""Of a logarithm: an end that is 7 times too early is no better than one that is 20 times."""
LEAST_REPLIES = 20
_ROUNDS = 4
_LEAST_LUCK = 1e-3
ENDLESS_CACHE_TOKENS, AT_ONCE_TOKENS_PER_S = 1_000_000_000, 1e9
"""Of an engine that nothing bounds, and whose prompts cost nothing."""


@dataclass(frozen=True, slots=True)
class KindNumbers:
    """What a kind is given, beside its line.

    Attributes:
        places: how many are served at full speed, or at all; of a pool, by each replica.
        bend: how the load slows it down: `beta`, `theta` or `gamma` of its table.
        replicas, routing: of a pool.
        cache_tokens: what an engine's cache holds; None if it is not played, and nothing bounds it.
        chunked: whether prompts share an engine's iterations with decoding.

    """

    places: int | Path
    bend: float = 0.0
    replicas: int = 1
    routing: str = ""
    cache_tokens: int | None = None
    chunked: bool = True


@dataclass(frozen=True, slots=True)
class Told:
    """What a kind says.

    Attributes:
        errors: the absolute logarithm of predicted over real time at the provider, of each
            complete reply.
        luck: by what factors each attempt took longer than the line says, up to its first token
            and after it, in two columns: one factor for both where no first token was seen. Nan
            where that is not known.

    """

    numbers: KindNumbers
    line: Line
    errors: Floats
    luck: Floats

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return float(self.errors.mean())

    def error_after(self, flights: AttemptTimes, since: float) -> Floats:
        """Return the errors of the replies to attempts sent later."""
        later: Floats = self.errors[(flights.sent > since)[flights.whole]]
        return later

    def factors(self, flights: AttemptTimes) -> Floats:
        """Return by what factor each attempt took longer in all."""
        first, rest = self.line.first_s(flights.prompt), self.line.s_per_token * flights.output
        return (self.luck[:, 0] * first + self.luck[:, 1] * rest) / np.maximum(first + rest, 1e-9)


def _slots(flights: AttemptTimes, numbers: KindNumbers, line: Line | None) -> Told:
    ours, over_time = _both(flights, numbers.places)
    beta = numbers.bend
    clock = flights.clock(lambda n: 1.0 / (1.0 + beta * np.minimum(n, over_time)))
    begun = flights.starts(ours)
    return _told_on_clock(flights, begun, clock, numbers, line, first_stretches=False)


def _sharing(flights: AttemptTimes, numbers: KindNumbers, line: Line | None) -> Told:
    _, over_time = _both(flights, numbers.places)
    power = 1.0 + numbers.bend
    clock = flights.clock(lambda n: np.minimum(1.0, over_time / n) ** power)
    return _told_on_clock(flights, flights.sent, clock, numbers, line, first_stretches=True)


def _pool(flights: AttemptTimes, numbers: KindNumbers, line: Line | None) -> Told:
    chosen = assigned(flights, numbers.replicas, numbers.routing)
    return tell_pool(flights, numbers, line, chosen)


def tell_pool(
    flights: AttemptTimes, numbers: KindNumbers, line: Line | None, chosen: np.ndarray
) -> Told:
    """Return what replicas say, of which each attempt was at the chosen one."""
    assert isinstance(numbers.places, int)
    begun = starts(flights, chosen, numbers.places)
    clock = flights.clock(np.ones_like)
    return _told_on_clock(flights, begun, clock, numbers, line, first_stretches=True)


def _linear(flights: AttemptTimes, numbers: KindNumbers, line: Line | None) -> Told:
    ours, _ = _both(flights, numbers.places)
    factor = 1.0 + numbers.bend * np.maximum(0.0, flights.ahead / ours - 1.0)
    took = flights.ended - flights.sent
    good = flights.whole & (took > 0)
    if line is None:
        line = fit_line(flights.prompt[good], flights.output[good], (took / factor)[good])
    predicted = line.work_s(flights.prompt, flights.output) * factor
    first_s = line.first_s(flights.prompt) * factor
    luck = _lucks(good, first_s, predicted - first_s, flights.first - flights.sent, took)
    return Told(numbers, line, _errors(flights, flights.sent + predicted), luck)


def _batching(flights: AttemptTimes, numbers: KindNumbers, line: Line | None) -> Told:
    """Tell an engine: its prompts take the time of all, and luck is in its decoding alone."""
    if numbers.cache_tokens is not None and line is not None:
        return played(flights, numbers, line)
    ours, over_time = _both(flights, numbers.places)
    starts = flights.starts(ours)
    clock = flights.clock(lambda n: 1.0 / (1.0 + numbers.bend * np.minimum(n, over_time)))
    read = flights.read_during(starts, flights.ended, clock)
    good = flights.whole & np.isfinite(starts) & (flights.ended > starts + 1e-6)
    if int(good.sum()) < LEAST_REPLIES:
        return hopeless(flights, numbers)
    work = np.maximum(clock.at(flights.ended) - clock.at(starts), 1e-9)
    if line is None:
        line = fit_line(read[good], flights.output[good], work[good])
    begin = clock.at(np.where(np.isfinite(starts), starts, flights.sent))
    luck = _decoding_luck(good, line, flights, work - line.first_s(read))
    ends = clock.when(begin + line.work_s(flights.prompt, flights.output))
    for _ in range(_ROUNDS):  # not the real end: it would tell how long the reply took
        read = flights.read_during(starts, ends, clock)
        ends = clock.when(begin + line.work_s(read, flights.output))
    return Told(numbers, line, _errors(flights, ends, good), luck)


def played(flights: AttemptTimes, numbers: KindNumbers, line: Line) -> Told:
    """Tell an engine by playing it, on a line that is known.

    A reply that had all its tokens at its real end is told to the hair; of any other the end is
    where it would be if the rest of its tokens took as long each as those that it had. One that had
    not begun by then is told as if it took twice as long as it did.
    """
    begun, done = beside(flights, engine_of(numbers, line), numbers.places)
    good = flights.whole & np.isfinite(begun) & (done > 0)
    ratio = np.where(good, done, 1.0) / np.maximum(flights.output, 1.0)
    late = 2.0 * flights.ended - flights.sent
    ends = np.where(good, begun + (flights.ended - begun) / ratio, late)
    luck = _decoding_luck(good, line, flights, line.s_per_token * flights.output * ratio)
    return Told(numbers, line, _errors(flights, ends), luck)


def engine_of(numbers: KindNumbers, line: Line) -> BatchingParams:
    """Return the engine with these numbers and this line; of places that move, with the first."""
    prompt_s, places = line.s_per_prompt_token, numbers.places
    return BatchingParams(
        max_seqs=places.places[0] if isinstance(places, Path) else places,
        kv_tokens=numbers.cache_tokens or ENDLESS_CACHE_TOKENS,
        iteration_base_s=line.s_per_token,
        iteration_per_seq_s=numbers.bend * line.s_per_token,
        prefill_tokens_per_s=1.0 / prompt_s if prompt_s > 0 else AT_ONCE_TOKENS_PER_S,
        chunked=numbers.chunked,
    )


TELL: Mapping[str, Callable[[AttemptTimes, KindNumbers, Line | None], Told]] = {
    "slots": _slots,
    "shared": _sharing,
    "thrash": _sharing,
    "linear": _linear,
    "batching": _batching,
    "pool": _pool,
}


def hopeless(flights: AttemptTimes, numbers: KindNumbers) -> Told:
    """Return what says nothing, where too few replies could be so."""
    errors = np.full(int(flights.whole.sum()), MOST_ERROR)
    return Told(numbers, Line(0.0, 0.0, 1.0, np.zeros(1)), errors, _unknown(flights))


def _both(flights: AttemptTimes, places: int | Path) -> tuple[Any, Any]:
    """Return the places when each attempt was sent, and at each of the flights' times."""
    if isinstance(places, Path):
        return places.at(flights.sent), places.at(flights.times)
    return places, places


def _told_on_clock(
    flights: AttemptTimes,
    starts: Floats,
    clock: PiecewiseClock,
    numbers: KindNumbers,
    line: Line | None,
    *,
    first_stretches: bool,
) -> Told:
    """Return what a kind says whose replies begin and are worked on by this clock.

    Where the time to the first token does not stretch with the load, as in `slots`, the clock
    counts tokens alone, and the line's first part takes of it what passes meanwhile.
    """
    good = flights.whole & np.isfinite(starts) & (flights.ended > starts + 1e-6)
    if int(good.sum()) < LEAST_REPLIES:
        return hopeless(flights, numbers)
    begun = np.where(np.isfinite(starts), starts, flights.sent)
    work = np.maximum(clock.at(flights.ended) - clock.at(begun), 1e-9)
    if line is None:
        line = _line_on_clock(flights, good, begun, clock, work, first_stretches=first_stretches)
    first, rest = line.first_s(flights.prompt), line.s_per_token * flights.output
    pace = np.ones_like(begun)
    if first_stretches:
        ends = clock.when(clock.at(begun) + first + rest)
    else:
        ends = clock.when(clock.at(begun + first) + rest)
        pace = _pace_until(first, begun, clock)
    until_first = clock.at(flights.first) - clock.at(begun)
    luck = _lucks(good, pace * first, rest, until_first, work)
    return Told(numbers, line, _errors(flights, ends, good), luck)


def _line_on_clock(
    flights: AttemptTimes,
    good: np.ndarray,
    begun: Floats,
    clock: PiecewiseClock,
    work: Floats,
    *,
    first_stretches: bool,
) -> Line:
    """Return the line that tells the work of good replies best."""
    prompt, output, work = flights.prompt[good], flights.output[good], work[good]
    if first_stretches:
        return fit_line(prompt, output, work)
    first_s = np.zeros_like(begun)
    for _ in range(3):  # the pace until the first token hangs on the line, and the line on it
        line = fit_line(prompt, output, work, _pace_until(first_s, begun, clock)[good])
        first_s = line.first_s(flights.prompt)
    return line


def _pace_until(first_s: Floats, begun: Floats, clock: PiecewiseClock) -> Floats:
    """Return how far the clock goes in a second, between each reply's begin and its first token."""
    first_s = np.maximum(first_s, 1e-3)
    return (clock.at(begun + first_s) - clock.at(begun)) / first_s


def _lucks(good: np.ndarray, first: Floats, rest: Floats, seen: Floats, whole: Floats) -> Floats:
    """Return by what factors attempts took longer than fitted; nan for those that are not good.

    `first` and `rest` are the fitted work up to the first token and after it; `seen` and `whole`
    are what it really was up to the first token, and in all.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = np.stack([seen / first, (whole - seen) / rest], axis=1)
        both = (whole / np.maximum(first + rest, 1e-9)).clip(_LEAST_LUCK, 1.0 / _LEAST_LUCK)
    known = ((apart > _LEAST_LUCK) & (apart < 1.0 / _LEAST_LUCK)).all(axis=1, keepdims=True)
    luck = np.where(known, apart, both[:, None])
    return np.where(good[:, None], luck, math.nan)


def _decoding_luck(good: np.ndarray, line: Line, flights: AttemptTimes, decoded: Floats) -> Floats:
    """Return the luck where it is in the decoding alone, which took so much work."""
    factor = decoded / np.maximum(line.s_per_token * flights.output, 1e-9)
    known = good & (factor > _LEAST_LUCK) & (factor < 1.0 / _LEAST_LUCK)
    return np.where(known[:, None], np.stack([np.ones_like(factor), factor], axis=1), math.nan)


def _unknown(flights: AttemptTimes) -> Floats:
    return np.full((len(flights.sent), 2), math.nan)


def _errors(flights: AttemptTimes, predicted: Floats, good: np.ndarray | None = None) -> Floats:
    """Return the absolute logarithms of predicted over real seconds at the provider."""
    whole = flights.whole
    took = np.maximum(flights.ended - flights.sent, 1e-6)[whole]
    ratio = np.maximum(predicted - flights.sent, 1e-6)[whole] / took
    error = np.minimum(np.abs(np.log(ratio)), MOST_ERROR)
    if good is not None:
        error = np.where(good[whole], error, MOST_ERROR)
    return np.asarray(error)
