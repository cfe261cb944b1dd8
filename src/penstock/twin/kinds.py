"""Fits of the kinds of provider in `penstock.sim.providers` to one upstream's attempts.

A kind's service line is a least-squares fit, its few other numbers a search over tables of such
fits.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from penstock.sim.providers.places import STEEPEST_THETA
from penstock.twin.capacity import Path, path_of
from penstock.twin.engine_fit import fitted_engine, screened
from penstock.twin.flights import AttemptTimes
from penstock.twin.history import Floats
from penstock.twin.noise import NO_DIFFERENCE
from penstock.twin.replicas import MOST_REPLICAS, ROUTINGS, assigned, most_at_one
from penstock.twin.service_line import Line
from penstock.twin.told import (
    ENDLESS_CACHE_TOKENS,
    LEAST_REPLIES,
    TELL,
    KindNumbers,
    Told,
    hopeless,
    tell_pool,
)

_PLACES = 28
_SLOTS = 8
_STRETCHES = 20
_WORTH_MOVES = 0.97
_SECTIONS = 16
_NEAR = (0.8, 0.86, 0.92, 0.96, 1.0, 1.04, 1.09, 1.17, 1.25)
_NEAR_SIZES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 1.0, 1.05, 1.1, 1.2, 1.4, 1.7, 2.0)
_NEAR_BENDS = (0.4, 0.6, 0.8, 0.9, 0.97, 1.0, 1.03, 1.1, 1.25, 1.6, 2.5)
_TURNS = 6
_BETAS = (0.003, 0.01, 0.03, 0.1, 0.3)
_THETAS = (0.25, 0.5, 1.0, 2.0)
_GAMMAS = (0.2, 0.5, 1.0, 2.0)
_PLAYED = 1000
"""Attempts: a play of so many takes 30 ms, and a search plays some hundred times. Of replicas as
many are tried on so many."""
_NEARLY = 0.02
"""Of a logarithm. So far off is the formula where an engine's prompts stall it."""
_WORTH_PLAY = 0.5
"""Of what the best of other kinds leaves. A play has the real ends put into it: it tells those of
replicas chosen by chance a fifth better than any formula, an engine's a hundred times."""
_ENDLESS = 1_000_000
"""So many places as if there were no bound."""
_LEAST_JITTER, _LEAST_STRAGGLERS = 0.005, 0.003
_PLACES_KEY = {"slots": "slots", "pool": "slots", "batching": "max_seqs"}
_SLOWED_BY_ALL = ("slots", "batching")
"""The others are slowed by what flies beyond their places."""
_BENDS = {"slots": _BETAS, "batching": _BETAS, "thrash": _THETAS, "linear": _GAMMAS}
_BEND_KEY = {"slots": "beta", "thrash": "theta", "linear": "gamma"}

_Tell = Callable[[int | Path, float, Line | None], Told]
"""What a kind says with so many places, so much slowed by its load, on a line or on its best."""


@dataclass(frozen=True, slots=True)
class Fit:
    """One kind fitted to one upstream.

    Attributes:
        told: its numbers, its line, and how well they tell the ends of replies.
        table: the provider's table, as a scenario has it.
        calls: whose attempts they are.
        bounded: whether the log shows that there are no more places.

    """

    kind: str
    told: Told
    table: dict[str, Any]
    calls: np.ndarray
    bounded: bool = True

    @property
    def error(self) -> float:
        """The mean of the errors."""
        return self.told.error

    def as_good_as(self, best: "Fit") -> bool:
        """Whether the difference of the errors to the best one's is nothing, or may be chance."""
        nothing = self.error - best.error < NO_DIFFERENCE
        return nothing or not _clearly_less(best.told.errors, self.told.errors)


def _clearly_less(ours: Floats, theirs: Floats) -> bool:
    """Return whether the errors are smaller by more than chance.

    Source:
        A paired t statistic over stretches of replies, as neighbours share their luck.

    """
    pieces = np.array_split(theirs - ours, _STRETCHES)
    means = np.array([piece.mean() for piece in pieces if len(piece)])
    spread = float(means.std(ddof=1)) / math.sqrt(len(means)) if len(means) > 1 else 0.0
    return float(means.mean()) > 2.0 * spread


def fits(flights: AttemptTimes) -> list[Fit]:
    """Return the best fit of each kind, the best first; none where too few replies ended."""
    if int(flights.whole.sum()) < LEAST_REPLIES:
        return []
    found = [_fit_of(kind, flights) for kind in ("slots", "shared", "thrash", "linear", "batching")]
    moves = min(found, key=lambda fit: fit.error).told.numbers.places
    if isinstance(moves, Path):
        found = [_moved_alike(fit, moves, flights) for fit in found]
    best = min(found, key=lambda fit: fit.error)
    found = [_played_engine(f, best, flights) if f.kind == "batching" else f for f in found]
    found.sort(key=lambda fit: fit.error)
    pool = _pool(flights)
    if pool is not None and _clearly_less(pool.told.errors, found[0].told.errors):
        found.append(pool)  # else one queue for all tells as much with fewer numbers
    return sorted(found, key=lambda fit: fit.error)


def _fit_of(kind: str, flights: AttemptTimes) -> Fit:
    """Return a kind's best fit: its places, their slowing and moves, and whether they are all."""
    most_bend = STEEPEST_THETA if kind == "thrash" else math.inf

    def tell(places: int | Path, bend: float, line: Line | None = None) -> Told:
        return TELL[kind](flights, KindNumbers(places, min(bend, most_bend)), line)

    found = _at_rest(kind, _places_of(flights), tell)
    found = _moved(flights, found, tell)
    moves = isinstance(found.numbers.places, Path)
    if moves and kind in _BENDS:
        found = _bent_over_time(found, _BENDS[kind], tell)
    free = tell(_ENDLESS, found.numbers.bend, found.line)
    bounded = moves or _clearly_less(found.errors, free.errors)
    return Fit(kind, found, _table(kind, found), flights.calls, bounded)


def _at_rest(kind: str, numbers: list[int], tell: _Tell) -> Told:
    """Return the best places and slowing of a kind, as if its places never moved."""
    if kind in ("thrash", "linear"):
        return _joint(numbers, _BENDS[kind], tell)
    found = _search(numbers, lambda n: tell(n, 0.03 if kind == "batching" else 0.0, None))
    return _bent(kind, numbers, found, tell) if kind in ("slots", "batching") else found


def _bent_over_time(found: Told, bends: tuple[float, ...], tell: _Tell) -> Told:
    """Return the fit with the slowing and the size of the places that tell most, moves and all.

    Both were found where the places did not move. Each makes up for the other, so they are
    searched together.
    """
    for _ in range(_TURNS):
        before, path, bend = found.error, found.numbers.places, found.numbers.bend
        assert isinstance(path, Path)
        if not bend:
            return _best(found, (tell(path, first, None) for first in bends))
        sizes = dict.fromkeys(path.times(near) for near in _NEAR_SIZES)
        near = ((size, bend * factor) for size in sizes for factor in _NEAR_BENDS)
        found = min((found, *(tell(*both, None) for both in near)), key=lambda each: each.error)
        if before - found.error < NO_DIFFERENCE * before:
            break
    return found


def _played_engine(engine: Fit, best: Fit, flights: AttemptTimes) -> Fit:
    """Return the engine as it tells when it is played, if that tells the ends better.

    It is played beside a first part of the log, if the formula tells the ends of an engine nearly,
    or a cache tells more of them than any formula does.
    """
    few = _first(flights)
    if int(few.whole.sum()) < LEAST_REPLIES or (best is not engine and best.error < NO_DIFFERENCE):
        return engine
    most = math.inf
    if best is not engine or engine.error > _NEARLY:
        other = TELL[best.kind](few, best.told.numbers, best.told.line)
        if not _clearly_less(screened(engine.told, few).errors, other.errors):
            return engine
        if best is not engine:
            most = _WORTH_PLAY * other.error
    found = fitted_engine(engine.told, few)
    if found.error > most:
        return engine
    told = TELL["batching"](flights, found.numbers, found.line)
    if not _clearly_less(told.errors, engine.told.errors):
        return engine
    return replace(fitted(engine, told), bounded=True)


def _first(flights: AttemptTimes) -> AttemptTimes:
    """Return a first part of the log, as much as is enough for what is slow to tell."""
    if len(flights.sent) <= _PLAYED:
        return flights
    return flights.until(float(flights.sent[_PLAYED]))


def _moved_alike(fit: Fit, moves: Path, flights: AttemptTimes) -> Fit:
    """Return the fit with the moves that the best kind saw, if these tell the ends much better.

    A kind whose one number throughout was far off has a line on which no move shows.
    """
    told = TELL[fit.kind](flights, replace(fit.told.numbers, places=moves), None)
    better = told.error <= _WORTH_MOVES * fit.error
    return replace(fitted(fit, told), bounded=True) if better else fit


def told_later(fit: Fit, whole: Fit | None, flights: AttemptTimes) -> Fit:
    """Return what the fit says of more attempts than it has seen.

    Its line and its slowing stay. Where its capacity moved, it may have moved since: when, and to
    what, the attempts show. Where it met no bound it is no witness of one, nor of a slowing beyond
    it: these are those of `whole`, the same kind's fit to all attempts, if its places do not move.
    """
    numbers, line = fit.told.numbers, fit.told.line
    if isinstance(numbers.places, Path):

        def errors(n: int) -> Floats:
            return TELL[fit.kind](flights, replace(numbers, places=n), line).errors

        path = path_of(flights, _near(numbers.places), errors)
        numbers = replace(numbers, places=path or numbers.places)
    elif not fit.bounded and whole is not None and isinstance(whole.told.numbers.places, int):
        bend = numbers.bend if fit.kind in _SLOWED_BY_ALL else whole.told.numbers.bend
        numbers = replace(whole.told.numbers, bend=bend)
    return replace(fitted(fit, TELL[fit.kind](flights, numbers, line)), calls=flights.calls)


def fitted(fit: Fit, told: Told) -> Fit:
    """Return the same kind with other numbers or another line."""
    kept = {key: value for key, value in fit.table.items() if key != "changes"}
    return replace(fit, told=told, table=kept | _table(fit.kind, told))


def _near(path: Path) -> list[int]:
    return sorted({max(1, round(n * near)) for n in path.places for near in _NEAR})


def _places_of(flights: AttemptTimes) -> list[int]:
    """Return numbers of places worth trying: up to as many as ever flew."""
    return _spread(1, max(1, int(flights.ahead.max())), _PLACES)


def _spread(low: int, high: int, count: int) -> list[int]:
    if high < low:
        return []
    return [int(n) for n in np.unique(np.round(np.geomspace(low, high, count)).astype(int))]


def _search(numbers: list[int], tried: Callable[[int], Told], *, rounds: int = 4) -> Told:
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


def _bent(kind: str, numbers: list[int], found: Told, tell: _Tell) -> Told:
    """Return the fit with a slowing by the load, and then the places again, where it tells more."""
    places = found.numbers.places
    found = _best(found, (tell(places, beta, None) for beta in _BETAS))
    bend = found.numbers.bend
    if kind == "slots" and bend:
        found = _search(numbers, lambda n: tell(n, bend, None))
        places = found.numbers.places
    if bend:
        found = _narrowed(found, lambda finer: tell(places, finer, None))
    if kind == "batching":
        found = _search(numbers, lambda n: tell(n, found.numbers.bend, None))
    return found


def _joint(numbers: list[int], bends: tuple[float, ...], tell: _Tell) -> Told:
    """Return the best of the numbers of places and of the slowing, together."""
    found = min(
        (_search(numbers, lambda n, bend=bend: tell(n, bend, None)) for bend in bends),  # type: ignore[misc]
        key=lambda each: each.error,
    )
    places = found.numbers.places
    assert isinstance(places, int)
    found = _narrowed(found, lambda finer: tell(places, finer, None))
    return _search([*numbers, places], lambda n: tell(n, found.numbers.bend, None))


def _narrowed(found: Told, tried: Callable[[float], Told]) -> Told:
    """Return the best around a slowing of the table, by golden sections of its logarithm."""
    low, high = found.numbers.bend / 3.0, found.numbers.bend * 3.0
    for _ in range(_SECTIONS):
        ratio = (high / low) ** 0.381966
        inner, outer = tried(low * ratio), tried(high / ratio)
        if inner.error <= outer.error:
            high /= ratio
        else:
            low *= ratio
        found = min(found, inner, outer, key=lambda each: each.error)
    return found


def _best(first: Told, others: Iterable[Told]) -> Told:
    """Return the best of the others if it is better by more than chance, else the first."""
    best = min(others, key=lambda other: other.error)
    return best if _clearly_less(best.errors, first.errors) else first


def _moved(flights: AttemptTimes, found: Told, tell: _Tell) -> Told:
    """Return the fit with capacity over time, if that tells the ends much better."""
    numbers, bend = _places_of(flights), found.numbers.bend
    for _ in range(2):

        def errors(n: int, line: Line = found.line) -> Floats:
            return tell(n, bend, line).errors

        path = path_of(flights, numbers, errors)
        if path is None:
            break
        other = tell(path, bend, None)
        if other.error > _WORTH_MOVES * found.error:
            break
        found = other
        numbers = _near(path)
    return found


def _pool(flights: AttemptTimes) -> Fit | None:
    """Fit replicas with queues of their own; None if there were never enough calls for two.

    Each number is tried on a first part of the log: they differ in who had which attempt.
    """
    best: Told | None = None
    few = _first(flights)
    for routing in ROUTINGS:
        for replicas in range(2, min(int(few.ahead.max()), MOST_REPLICAS) + 1):
            # One replica more routes all otherwise: its neighbours say nothing of a number.
            chosen = assigned(few, replicas, routing)

            def tried(slots: int, numbers: KindNumbers, chosen: np.ndarray) -> Told:
                return tell_pool(few, replace(numbers, places=slots), None, chosen)

            numbers = KindNumbers(1, replicas=replicas, routing=routing)
            slots = _spread(1, most_at_one(few, chosen), _SLOTS)
            found = _search(slots, partial(tried, numbers=numbers, chosen=chosen))
            if best is None or found.error < best.error:
                best = found
    if best is None:
        return None
    best = TELL["pool"](flights, best.numbers, None)
    none = hopeless(flights, best.numbers)  # what more replicas would do is another pool
    bounded = _clearly_less(best.errors, none.errors)
    return Fit("pool", best, _table("pool", best), flights.calls, bounded)


def _table(kind: str, told: Told) -> dict[str, Any]:
    """Return the provider's table."""
    numbers, line = told.numbers, told.line
    places, key = numbers.places, _PLACES_KEY.get(kind, "capacity")
    table: dict[str, Any] = {"model": kind}
    if kind == "linear":
        table |= {"base_s": line.base_s, "s_per_token": line.s_per_token}
    elif kind == "batching":
        table |= {
            "iteration_base_s": line.s_per_token,
            "iteration_per_seq_s": numbers.bend * line.s_per_token,
            "kv_tokens": numbers.cache_tokens or ENDLESS_CACHE_TOKENS,
            "chunked": numbers.chunked,
        }
    else:
        table |= {"tokens_per_s": 1.0 / line.s_per_token, "ttft_s": line.base_s}
    if kind == "pool":
        table |= {"replicas": numbers.replicas, "routing": numbers.routing}
    if kind in _BEND_KEY:
        table[_BEND_KEY[kind]] = numbers.bend
    if line.s_per_prompt_token > 0:
        table["prefill_tokens_per_s"] = 1.0 / line.s_per_prompt_token
    if kind != "batching":
        table |= _variation(line)
    if isinstance(places, Path):
        return table | {key: places.places[0], "changes": places.changes(key)}
    return table | {key: places}


def _variation(line: Line) -> dict[str, Any]:
    """Return how service times vary, as keys of a table."""
    found: dict[str, Any] = {"jitter": line.sigma if line.sigma >= _LEAST_JITTER else 0.0}
    share, factor = line.stragglers()
    if share >= _LEAST_STRAGGLERS:
        found["stragglers"] = {"share": share, "factor": factor}
    return found
