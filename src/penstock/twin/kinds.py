"""Fits of the kinds of provider in `penstock.sim.providers` to one upstream's attempts.

Nothing is simulated: given who flew when, each kind says when a reply should have ended, so that
its service line is a least-squares fit and its few other parameters a search over tables of them.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np

from penstock.twin.capacity import Path, path_of
from penstock.twin.flights import AttemptTimes, PiecewiseClock
from penstock.twin.history import Floats
from penstock.twin.replicas import MOST_REPLICAS, ROUTINGS, assigned, starts
from penstock.twin.service_line import Line, fit_line

MOST_ERROR = 2.0
"""Of a logarithm: an end that is 7 times too early is no better than one that is 20 times."""
LEAST_REPLIES = 20
_PLACES = 28
_REPLICAS, _SLOTS = 14, 8
_STRETCHES = 20
_WORTH_MOVES = 0.97
_SECTIONS = 16
_ROUNDS = 4
_NEAR = (0.8, 0.86, 0.92, 0.96, 1.0, 1.04, 1.09, 1.17, 1.25)
_BETAS = (0.003, 0.01, 0.03, 0.1, 0.3)
_THETAS = (0.25, 0.5, 1.0, 2.0)
_GAMMAS = (0.2, 0.5, 1.0, 2.0)
_ENDLESS_CACHE_TOKENS = 1_000_000_000
"""What a cache holds is not fitted."""
_ENDLESS = 1_000_000
"""So many places as if there were no bound."""
_LEAST_LUCK = 0.02
_LEAST_JITTER, _LEAST_STRAGGLERS = 0.005, 0.003


@dataclass(frozen=True, slots=True)
class Fit:
    """One kind fitted to one upstream.

    Attributes:
        table: the provider's table, as a scenario has it.
        errors: the absolute logarithm of predicted over real time at the provider, of each
            complete reply.
        luck: by what factor each attempt took longer than the line says; nan where that is not
            known, and everywhere for a kind in which luck has no part.
        calls: whose attempts they are.
        bounded: whether the log shows that there are no more places.

    """

    kind: str
    table: dict[str, Any]
    errors: Floats
    line: Line
    luck: Floats
    calls: np.ndarray
    bounded: bool = True

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return float(self.errors.mean())

    def as_good_as(self, best: "Fit") -> bool:
        """Whether the difference of the errors to the best one's may be chance."""
        return not _clearly_less(best.errors, self.errors)


def _clearly_less(ours: Floats, theirs: Floats) -> bool:
    """Return whether the errors are smaller by more than chance.

    Source:
        A paired t statistic over stretches of replies, as neighbours share their luck.

    """
    pieces = np.array_split(theirs - ours, _STRETCHES)
    means = np.array([piece.mean() for piece in pieces if len(piece)])
    spread = float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return float(means.mean()) > 2.0 * spread


@dataclass(frozen=True, slots=True)
class _Found:
    errors: Floats
    line: Line
    parameters: dict[str, Any]
    luck: Floats | None = None

    @property
    def error(self) -> float:
        return float(self.errors.mean())


def fits(flights: AttemptTimes) -> list[Fit]:
    """Return the best fit of each kind, the best first; none where too few replies ended."""
    if int(flights.whole.sum()) < LEAST_REPLIES:
        return []
    found = [kind(flights) for kind in (_slots, _shared, _thrash, _linear, _batching)]
    pool = _pool(flights)
    if pool is not None and _clearly_less(pool.errors, found[0].errors):
        found.append(pool)  # else one queue for all tells as much with fewer numbers
    return sorted(found, key=lambda fit: fit.error)


def _places_of(flights: AttemptTimes) -> list[int]:
    """Return numbers of places worth trying: up to as many as ever flew."""
    most = max(1, int(flights.ahead.max()))
    spread = np.unique(np.round(np.geomspace(1, most, _PLACES)).astype(int))
    return [int(n) for n in spread]


def _search(numbers: list[int], tried: Callable[[int], _Found], *, rounds: int = 4) -> _Found:
    """Return the best of the numbers, and of those between the best and its neighbours."""
    known = {n: tried(n) for n in numbers}
    for _ in range(rounds):
        best = min(known, key=lambda n: (round(known[n].error, 6), n))
        around = sorted(known)
        place = around.index(best)
        near = around[max(0, place - 1) : place + 2]
        more = {
            n
            for low, high in pairwise(near)
            for n in (low + (high - low) // 3, low + 2 * (high - low) // 3, (low + high) // 2)
        } - known.keys()
        if not more:
            break
        known |= {n: tried(n) for n in sorted(more)}
    return known[min(known, key=lambda n: (round(known[n].error, 6), n))]


def _slots(flights: AttemptTimes) -> Fit:
    def tried(places: int | Path, beta: float = 0.0, line: Line | None = None) -> _Found:
        ours, over_time = _both(flights, places)
        clock = flights.clock(lambda n: 1.0 / (1.0 + beta * np.minimum(n, over_time)))
        parameters = _moving("slots", places) | {"beta": beta}
        return _measured(
            flights, flights.starts(ours), clock, parameters, first_stretches=False, line=line
        )

    found = _search(_places_of(flights), tried)
    found = _best(found, (tried(found.parameters["slots"], beta) for beta in _BETAS))
    beta = found.parameters["beta"]
    if beta:
        found = _search(_places_of(flights), lambda n: tried(n, beta))
        places = found.parameters["slots"]
        found = _narrowed(found, beta, lambda finer: tried(places, finer))
    found = _moved(
        flights, found, lambda places, line: tried(places, found.parameters["beta"], line)
    )
    free = tried(_ENDLESS, found.parameters["beta"], found.line)
    return _fit("slots", flights, found, _speeds(found.line) | found.parameters, free)


def _shared(flights: AttemptTimes) -> Fit:
    found = _search(_places_of(flights), lambda n: _sharing(flights, n, 0.0))
    found = _moved(flights, found, lambda places, line: _sharing(flights, places, 0.0, line))
    free = _sharing(flights, _ENDLESS, 0.0, found.line)
    return _fit("shared", flights, found, _speeds(found.line) | found.parameters, free)


def _thrash(flights: AttemptTimes) -> Fit:
    found = _joint(flights, "theta", _THETAS, lambda n, theta: _sharing(flights, n, theta))
    theta = found.parameters["theta"]
    found = _moved(flights, found, lambda places, line: _sharing(flights, places, theta, line))
    free = _sharing(flights, _ENDLESS, theta, found.line)
    return _fit("thrash", flights, found, _speeds(found.line) | found.parameters, free)


def _sharing(
    flights: AttemptTimes, places: int | Path, theta: float, line: Line | None = None
) -> _Found:
    _, over_time = _both(flights, places)
    clock = flights.clock(lambda n: np.minimum(1.0, over_time / n) ** (1.0 + theta))
    parameters = _moving("capacity", places)
    if theta:
        parameters["theta"] = theta
    return _measured(flights, flights.sent, clock, parameters, first_stretches=True, line=line)


def _batching(flights: AttemptTimes) -> Fit:
    """Fit an engine: its prompts take the time of all, and it has no luck."""

    def tried(places: int | Path, beta: float = 0.0, line: Line | None = None) -> _Found:
        ours, over_time = _both(flights, places)
        starts = flights.starts(ours)
        clock = flights.clock(lambda n: 1.0 / (1.0 + beta * np.minimum(n, over_time)))
        read = flights.read_during(starts, flights.ended, clock)
        good = flights.whole & np.isfinite(starts) & (flights.ended > starts + 1e-6)
        if int(good.sum()) < LEAST_REPLIES:
            return _hopeless(flights, {})
        work = np.maximum(clock.at(flights.ended) - clock.at(starts), 1e-9)
        if line is None:
            line = fit_line(read[good], flights.output[good], work[good])
        begin = clock.at(np.where(np.isfinite(starts), starts, flights.sent))
        ends = clock.when(begin + line.work_s(flights.prompt, flights.output))
        for _ in range(_ROUNDS):  # not the real end: it would tell how long the reply took
            read = flights.read_during(starts, ends, clock)
            ends = clock.when(begin + line.work_s(read, flights.output))
        parameters = _moving("max_seqs", places) | {"beta": beta}
        return _Found(_errors(flights, ends, good), line, parameters)

    found = _search(_places_of(flights), lambda n: tried(n, 0.03))
    found = _best(found, (tried(found.parameters["max_seqs"], beta) for beta in _BETAS))
    places = found.parameters["max_seqs"]
    found = _narrowed(found, found.parameters["beta"], lambda finer: tried(places, finer))
    found = _search(_places_of(flights), lambda n: tried(n, found.parameters["beta"]))
    found = _moved(
        flights, found, lambda places, line: tried(places, found.parameters["beta"], line)
    )
    line, parameters = found.line, dict(found.parameters)
    beta = parameters.pop("beta")
    parameters |= {
        "iteration_base_s": line.s_per_token,
        "iteration_per_seq_s": beta * line.s_per_token,
        "kv_tokens": _ENDLESS_CACHE_TOKENS,
    }
    free = tried(_ENDLESS, beta, line)
    fit = _fit("batching", flights, found, parameters, free)
    del fit.table["jitter"]
    fit.table.pop("stragglers", None)
    return fit


def _pool(flights: AttemptTimes) -> Fit | None:
    """Fit replicas with queues of their own; None if there were never enough calls for two."""
    most = int(flights.ahead.max())
    clock = flights.clock(np.ones_like)
    best: _Found | None = None
    for routing in ROUTINGS:
        for replicas in _spread(2, min(most, MOST_REPLICAS), _REPLICAS):
            chosen = assigned(flights, replicas, routing)
            named = {"replicas": replicas, "routing": routing}

            def tried(slots: int, chosen: np.ndarray = chosen, named: Any = named) -> _Found:
                begun = starts(flights, chosen, slots)
                parameters = named | {"slots": slots}
                return _measured(flights, begun, clock, parameters, first_stretches=True)

            found = _search(_spread(1, max(1, round(most / replicas)), _SLOTS), tried)
            if best is None or found.error < best.error:
                best = found
    if best is None:
        return None
    none = _hopeless(flights, {})  # what more replicas would do is another pool
    return _fit("pool", flights, best, _speeds(best.line) | best.parameters, none)


def _spread(low: int, high: int, count: int) -> list[int]:
    if high < low:
        return []
    return [int(n) for n in np.unique(np.round(np.geomspace(low, high, count)).astype(int))]


def _linear(flights: AttemptTimes) -> Fit:
    def tried(places: int | Path, gamma: float = 0.5, line: Line | None = None) -> _Found:
        ours, _ = _both(flights, places)
        factor = 1.0 + gamma * np.maximum(0.0, flights.ahead / ours - 1.0)
        took = flights.ended - flights.sent
        good = flights.whole & (took > 0)
        if line is None:
            line = fit_line(flights.prompt[good], flights.output[good], (took / factor)[good])
        predicted = line.work_s(flights.prompt, flights.output) * factor
        errors = _errors(flights, flights.sent + predicted)
        luck = _lucks(flights, good, (took / np.maximum(predicted, 1e-9))[good])
        return _Found(errors, line, _moving("capacity", places) | {"gamma": gamma}, luck)

    found = _joint(flights, "gamma", _GAMMAS, tried)
    gamma = found.parameters["gamma"]
    found = _moved(flights, found, lambda places, line: tried(places, gamma, line))
    line = found.line
    speeds = {"base_s": line.base_s, "s_per_token": line.s_per_token}
    free = tried(_ENDLESS, gamma, line)
    return _fit("linear", flights, found, speeds | found.parameters, free)


def _joint(
    flights: AttemptTimes,
    key: str,
    values: tuple[float, ...],
    tried: Callable[[int, float], _Found],
) -> _Found:
    """Return the best of the numbers of places and of another parameter, together."""
    numbers = _places_of(flights)
    found = min(
        (_search(numbers, lambda n, value=value: tried(n, value)) for value in values),  # type: ignore[misc]
        key=lambda each: each.error,
    )
    places = found.parameters["capacity"]
    found = _narrowed(found, found.parameters[key], lambda finer: tried(places, finer))
    value = found.parameters[key]
    return _search([*numbers, places], lambda n: tried(n, value))


def _narrowed(found: _Found, value: float, tried: Callable[[float], _Found]) -> _Found:
    """Return the best around a value of the table, by golden sections of its logarithm."""
    low, high = value / 3.0, value * 3.0
    for _ in range(_SECTIONS):
        ratio = (high / low) ** 0.381966
        inner, outer = tried(low * ratio), tried(high / ratio)
        if inner.error <= outer.error:
            high /= ratio
        else:
            low *= ratio
        found = min(found, inner, outer, key=lambda each: each.error)
    return found


def _both(flights: AttemptTimes, places: int | Path) -> tuple[Any, Any]:
    """Return the places when each attempt was sent, and at each of the flights' times."""
    if isinstance(places, Path):
        return places.at(flights.sent), places.at(flights.times)
    return places, places


def _moving(key: str, places: int | Path) -> dict[str, Any]:
    if isinstance(places, Path):
        return {key: places.places[0], "changes": places.changes(key)}
    return {key: places}


def _moved(
    flights: AttemptTimes, found: _Found, tried: Callable[[int | Path, Line | None], _Found]
) -> _Found:
    """Return the fit with capacity over time, if that tells the ends much better."""
    numbers = _places_of(flights)
    for _ in range(2):

        def errors(n: int, line: Line = found.line) -> Floats:
            return tried(n, line).errors

        path = path_of(flights, numbers, errors)
        if path is None:
            break
        other = tried(path, None)
        if other.error > _WORTH_MOVES * found.error or not _clearly_less(
            other.errors, found.errors
        ):
            break
        found = other
        numbers = sorted({max(1, round(n * near)) for n in path.places for near in _NEAR})
    return found


def _best(first: _Found, others: Iterator[_Found]) -> _Found:
    """Return the best of the others if it is better by more than chance, else the first."""
    best = min(others, key=lambda other: other.error)
    return best if _clearly_less(best.errors, first.errors) else first


def _measured(
    flights: AttemptTimes,
    starts: Floats,
    clock: PiecewiseClock,
    parameters: dict[str, Any],
    *,
    first_stretches: bool,
    line: Line | None = None,
) -> _Found:
    """Fit the line on this clock and measure how well it tells the ends.

    Where the time to the first token does not stretch with the load, as in `slots`, the clock
    counts tokens alone, and the line's first part takes of it what passes meanwhile.
    """
    good = flights.whole & np.isfinite(starts) & (flights.ended > starts + 1e-6)
    if int(good.sum()) < LEAST_REPLIES:
        return _hopeless(flights, parameters)
    prompt, output = flights.prompt[good], flights.output[good]
    begun, ended = starts[good], flights.ended[good]
    work = np.maximum(clock.at(ended) - clock.at(begun), 1e-9)
    if line is None and first_stretches:
        line = fit_line(prompt, output, work)
    elif line is None:
        first_s = np.full_like(begun, 1e-3)
        for _ in range(3):
            pace = (clock.at(begun + first_s) - clock.at(begun)) / first_s
            line = fit_line(prompt, output, work, pace)
            first_s = np.maximum(line.first_s(prompt), 1e-3)
    assert line is not None
    begin = np.where(np.isfinite(starts), starts, flights.sent)
    if first_stretches:
        left = line.work_s(flights.prompt, flights.output)
    else:
        begin = begin + line.first_s(flights.prompt)
        left = line.s_per_token * flights.output
    errors = _errors(flights, clock.when(clock.at(begin) + left), good)
    first_s = np.maximum(line.first_s(prompt), 1e-3)
    pace = (
        np.ones_like(begun)
        if first_stretches
        else (clock.at(begun + first_s) - clock.at(begun)) / first_s
    )
    fitted = np.maximum(pace * line.first_s(prompt) + line.s_per_token * output, 1e-9)
    return _Found(errors, line, parameters, _lucks(flights, good, work / fitted))


def _lucks(flights: AttemptTimes, good: np.ndarray, factors: Floats) -> Floats:
    luck = np.full(len(flights.sent), math.nan)
    luck[good] = np.clip(factors, _LEAST_LUCK, 1.0 / _LEAST_LUCK)
    return luck


def _hopeless(flights: AttemptTimes, parameters: dict[str, Any]) -> _Found:
    """Return what says nothing, where too few replies could be so."""
    errors = np.full(int(flights.whole.sum()), MOST_ERROR)
    return _Found(errors, Line(0.0, 0.0, 1.0, np.zeros(1)), parameters)


def _errors(flights: AttemptTimes, predicted: Floats, good: np.ndarray | None = None) -> Floats:
    """Return the absolute logarithms of predicted over real seconds at the provider."""
    whole = flights.whole
    took = np.maximum(flights.ended - flights.sent, 1e-6)[whole]
    ratio = np.maximum(predicted - flights.sent, 1e-6)[whole] / took
    error = np.minimum(np.abs(np.log(ratio)), MOST_ERROR)
    if good is not None:
        error = np.where(good[whole], error, MOST_ERROR)
    return np.asarray(error)


def _speeds(line: Line) -> dict[str, Any]:
    return {"tokens_per_s": 1.0 / line.s_per_token, "ttft_s": line.base_s}


def _fit(
    kind: str, flights: AttemptTimes, found: _Found, parameters: dict[str, Any], free: _Found
) -> Fit:
    line = found.line
    table: dict[str, Any] = {"model": kind}
    table |= {
        key: _rounded(value) if isinstance(value, float) else value
        for key, value in parameters.items()
    }
    if line.s_per_prompt_token > 0:
        table["prefill_tokens_per_s"] = _rounded(1.0 / line.s_per_prompt_token)
    table["jitter"] = _rounded(line.sigma) if line.sigma >= _LEAST_JITTER else 0.0
    share, factor = line.stragglers()
    if share >= _LEAST_STRAGGLERS:
        table["stragglers"] = {"share": _rounded(share), "factor": _rounded(factor)}
    luck = np.full(len(flights.sent), math.nan) if found.luck is None else found.luck
    bounded = "changes" in table or _clearly_less(found.errors, free.errors)
    return Fit(kind, table, found.errors, line, luck, flights.calls, bounded)


def _rounded(value: float) -> float:
    """Return nine figures of a number: where nothing is luck, whole queues hang on the sixth."""
    if isinstance(value, int) or not value or not math.isfinite(value):
        return value
    return float(f"{value:.9g}")
