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

from penstock.twin.flights import Clock, Flights
from penstock.twin.history import Floats
from penstock.twin.line import Line, fit_line

MOST_ERROR = 2.0
"""Of a logarithm: an end that is 7 times too early is no better than one that is 20 times."""
LEAST_REPLIES = 20
_PLACES = 28
_STRETCHES = 20
_BETAS = (0.003, 0.01, 0.03, 0.1, 0.3)
_THETAS = (0.25, 0.5, 1.0)
_GAMMAS = (0.2, 0.5, 1.0, 2.0)
_LEAST_JITTER, _LEAST_STRAGGLERS = 0.005, 0.003


@dataclass(frozen=True, slots=True)
class Fit:
    """One kind fitted to one upstream.

    Attributes:
        table: the provider's table, as a scenario has it.
        errors: the absolute logarithm of predicted over real time at the provider, of each
            complete reply.

    """

    kind: str
    table: dict[str, Any]
    errors: Floats
    line: Line

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return float(self.errors.mean())

    def as_good_as(self, best: "Fit") -> bool:
        """Whether the difference of the errors to the best one's may be chance.

        Source:
            A paired t statistic over stretches of replies, as neighbours share their luck.

        """
        pieces = np.array_split(self.errors - best.errors, _STRETCHES)
        means = np.array([piece.mean() for piece in pieces if len(piece)])
        spread = float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else 0.0
        return float(means.mean()) <= 2.0 * spread


@dataclass(frozen=True, slots=True)
class _Found:
    errors: Floats
    line: Line
    parameters: dict[str, Any]

    @property
    def error(self) -> float:
        return float(self.errors.mean())


def fits(flights: Flights) -> list[Fit]:
    """Return the best fit of each kind, the best first; none where too few replies ended."""
    if int(flights.whole.sum()) < LEAST_REPLIES:
        return []
    found = [kind(flights) for kind in (_slots, _shared, _thrash, _linear)]
    return sorted(found, key=lambda fit: fit.error)


def _places_of(flights: Flights) -> list[int]:
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


def _slots(flights: Flights) -> Fit:
    def tried(places: int, beta: float = 0.0) -> _Found:
        starts = flights.starts(places)
        clock = flights.clock(lambda n: 1.0 / (1.0 + beta * np.minimum(n, places)))
        return _measured(
            flights, starts, clock, {"slots": places, "beta": beta}, first_stretches=False
        )

    found = _search(_places_of(flights), tried)
    found = _best(found, (tried(found.parameters["slots"], beta) for beta in _BETAS))
    if found.parameters["beta"]:
        beta = found.parameters["beta"]
        found = _search(_places_of(flights), lambda n: tried(n, beta))
        places = found.parameters["slots"]
        finer = (tried(places, beta * times) for times in (0.4, 0.6, 0.8, 1.3, 1.8))
        found = _best(found, finer)
    return _fit("slots", found, _speeds(found.line) | found.parameters)


def _shared(flights: Flights) -> Fit:
    found = _search(_places_of(flights), lambda n: _sharing(flights, n, 0.0))
    return _fit("shared", found, _speeds(found.line) | found.parameters)


def _thrash(flights: Flights) -> Fit:
    found = _search(_places_of(flights), lambda n: _sharing(flights, n, 0.5))
    places = found.parameters["capacity"]
    found = _best(found, (_sharing(flights, places, theta) for theta in _THETAS))
    theta = found.parameters["theta"]
    found = _search(_places_of(flights), lambda n: _sharing(flights, n, theta))
    return _fit("thrash", found, _speeds(found.line) | found.parameters)


def _sharing(flights: Flights, places: int, theta: float) -> _Found:
    clock = flights.clock(lambda n: np.minimum(1.0, places / n) ** (1.0 + theta))
    parameters: dict[str, Any] = {"capacity": places}
    if theta:
        parameters["theta"] = theta
    return _measured(flights, flights.sent, clock, parameters, first_stretches=True)


def _linear(flights: Flights) -> Fit:
    def tried(places: int, gamma: float = 0.5) -> _Found:
        factor = 1.0 + gamma * np.maximum(0.0, flights.ahead / places - 1.0)
        took = flights.ended - flights.sent
        good = flights.whole & (took > 0)
        line = fit_line(flights.prompt[good], flights.output[good], (took / factor)[good])
        predicted = line.work_s(flights.prompt, flights.output) * factor
        errors = _errors(flights, flights.sent + predicted)
        return _Found(errors, line, {"capacity": places, "gamma": gamma})

    found = _search(_places_of(flights), tried)
    found = _best(found, (tried(found.parameters["capacity"], gamma) for gamma in _GAMMAS))
    gamma = found.parameters["gamma"]
    found = _search(_places_of(flights), lambda n: tried(n, gamma))
    line = found.line
    speeds = {"base_s": line.base_s, "s_per_token": line.s_per_token}
    return _fit("linear", found, speeds | found.parameters)


def _best(first: _Found, others: Iterator[_Found]) -> _Found:
    """Return the best; another one must be better by more than rounding."""
    best = first
    for other in others:
        if other.error < 0.999 * best.error:
            best = other
    return best


def _measured(
    flights: Flights,
    starts: Floats,
    clock: Clock,
    parameters: dict[str, Any],
    *,
    first_stretches: bool,
) -> _Found:
    """Fit the line on this clock and measure how well it tells the ends.

    Where the time to the first token does not stretch with the load, as in `slots`, the clock
    counts tokens alone; what comes before is taken off by the line of the round before.
    """
    good = flights.whole & np.isfinite(starts) & (flights.ended > starts + 1e-6)
    if int(good.sum()) < LEAST_REPLIES:
        errors = np.full(int(flights.whole.sum()), MOST_ERROR)
        return _Found(errors, Line(0.0, 0.0, 1.0, np.zeros(1)), parameters)
    prompt, output = flights.prompt[good], flights.output[good]
    begun, ended = starts[good], flights.ended[good]
    first_s = np.zeros_like(begun)
    line = Line(0.0, 0.0, 1.0, first_s)
    for _ in range(1 if first_stretches else 3):
        decoding = np.minimum(begun + first_s, ended)
        work = clock.at(ended) - clock.at(decoding) + (decoding - begun)
        line = fit_line(prompt, output, np.maximum(work, 1e-9))
        first_s = np.zeros_like(begun) if first_stretches else line.first_s(prompt)
    begin = np.where(np.isfinite(starts), starts, flights.sent)
    if first_stretches:
        left = line.work_s(flights.prompt, flights.output)
    else:
        begin = begin + line.first_s(flights.prompt)
        left = line.s_per_token * flights.output
    errors = _errors(flights, clock.when(clock.at(begin) + left), good)
    return _Found(errors, line, parameters)


def _errors(flights: Flights, predicted: Floats, good: np.ndarray | None = None) -> Floats:
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


def _fit(kind: str, found: _Found, parameters: dict[str, Any]) -> Fit:
    line = found.line
    table: dict[str, Any] = {"model": kind}
    table |= {key: _rounded(value) for key, value in parameters.items()}
    if line.s_per_prompt_token > 0:
        table["prefill_tokens_per_s"] = _rounded(1.0 / line.s_per_prompt_token)
    table["jitter"] = _rounded(line.sigma) if line.sigma >= _LEAST_JITTER else 0.0
    share, factor = line.stragglers()
    if share >= _LEAST_STRAGGLERS:
        table["stragglers"] = {"share": _rounded(share), "factor": _rounded(factor)}
    return Fit(kind, table, found.errors, line)


def _rounded(value: float) -> float:
    """Return four figures of a number: more are noise, and nobody wants to read them."""
    if isinstance(value, int) or not value or not math.isfinite(value):
        return value
    return float(f"{value:.4g}")
