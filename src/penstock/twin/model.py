"""From a history to a twin: each upstream's fits, and the kind that tells held-back time best."""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from penstock.core.events import LimitsSeen
from penstock.errors import ProtocolError
from penstock.sim.providers.places import CACHED_PART
from penstock.twin.check import Check, check, split_at
from penstock.twin.flights import flights_of
from penstock.twin.history import Attempt, Floats, History, TooLittle
from penstock.twin.kinds import Fit, fits, told_later
from penstock.twin.limits import limits_of, troubles_of
from penstock.twin.noise import luck_after
from penstock.twin.rerun import Luck

_KINDS_TRIED = 3
"""Of several kinds that tell the ends of replies as well, so many are run on held-back time."""


_PLAINEST = ("slots", "shared", "linear", "thrash", "batching", "pool")
_PLACES_KEYS = ("slots", "capacity", "max_seqs")
_ROOM = 4
Fits = dict[str, list[Fit]]
"""By upstream."""


@dataclass(frozen=True, slots=True)
class Twin:
    """A fitted provider for each upstream, and how far it may be trusted.

    Attributes:
        providers: tables by upstream, fitted to the whole log.
        check: of the same kinds, fitted to the log's first part, on the rest.
        luck: that the calls had by this model.
        others: other models that told the log as well, each with its luck; what they say of another
            configuration may differ.
        kind: of the providers. early, whole: all kinds' fits to the log's first part and to all.

    """

    providers: dict[str, dict[str, Any]]
    check: Check
    luck: Luck
    others: tuple[tuple[dict[str, dict[str, Any]], Luck], ...]
    kind: str
    early: Fits
    whole: Fits


def twin_of(history: History, *, on_step: Callable[[str], object] = lambda _step: None) -> Twin:
    """Fit the history.

    Args:
        history: what really happened.
        on_step: told what is done next, in words: it takes seconds.

    Raises:
        TooLittle: too few replies have ended to fit anything.

    """
    since = split_at(history)
    on_step("fitting models of the provider to the log's first 60 %")
    early = _fits_by_upstream(history, until=since)
    on_step("fitting models of the provider to the whole log")
    whole = _fits_by_upstream(history)
    on_step("checking them on what came after the first 60 %")
    return _chosen(history, early, whole, since)


def _chosen(history: History, early: Fits, whole: Fits, since: float) -> Twin:
    """Return the twin of the kind that tells the held-back time best."""
    tried: list[tuple[float, str, Check]] = []
    for kind in _kinds(whole, early):
        try:
            found = checked(history, early, whole, kind, since)
        except ProtocolError:
            continue
        tried.append((found.distance, kind, found))
    if not tried:
        raise TooLittle("no kind of provider served this traffic to its end")
    # All of them tell single replies alike: of those within the bounds the plainest.
    passing = [each for each in tried if each[2].passed]
    best = passing[0] if passing else min(tried, key=lambda each: each[0])
    kept = [kind for far, kind, _ in tried if kind != best[1] and far <= max(1.0, best[0])]
    others: list[tuple[dict[str, dict[str, Any]], Luck]] = [
        (_tables(whole, kind), _luck(whole, kind)) for kind in kept
    ]
    for kind in (best[1], *kept):
        others += _roomy(whole, kind)
    luck = _luck(whole, best[1])
    return Twin(_tables(whole, best[1]), best[2], luck, tuple(others), best[1], early, whole)


def checked(history: History, early: Fits, whole: Fits, kind: str, since: float) -> Check:
    """Run what the first part says of a kind through the rest, each call with its own luck.

    Of the whole log's fits only a bound is taken that the first part never met.
    """
    luck: dict[int, tuple[float, float]] = {}
    worse: list[Floats] = []
    tables = _tables(early, kind)
    for name, fits_ in early.items():
        flights = flights_of([a for a in history.attempts if a.upstream == name])
        for fit in fits_:
            if fit.kind == kind:
                same = next((each for each in whole[name] if each.kind == kind), None)
                later = told_later(fit, same, flights)
                tables[name] = later.table
                luck |= _by_call(luck_after(later.told, flights, since), flights.calls)
                worse.append(later.told.error_after(flights, since) - fit.error)
    return check(history, tables, since, luck=luck, worse=float(np.concatenate(worse).mean()))


def _roomy(found: Fits, kind: str) -> list[tuple[dict[str, dict[str, Any]], Luck]]:
    """Return the model with far more places where the log does not show that there are none."""
    tables, free = _tables(found, kind), False
    for name, fits_ in found.items():
        fit = next((each for each in fits_ if each.kind == kind), None)
        key = next((key for key in _PLACES_KEYS if key in tables[name]), None)
        if fit is not None and not fit.bounded and key is not None:
            tables[name] = tables[name] | {key: _ROOM * tables[name][key]}
            free = True
    return [(tables, _luck(found, kind))] if free else []


def _luck(found: Fits, kind: str) -> dict[int, tuple[float, float]]:
    """Return the known luck of the calls, by their places."""
    known: dict[int, tuple[float, float]] = {}
    for fits_ in found.values():
        for fit in fits_:
            if fit.kind == kind:
                known |= _by_call(fit.told.luck, fit.calls)
    return known


def _by_call(luck: Floats, calls: np.ndarray) -> dict[int, tuple[float, float]]:
    known = np.isfinite(luck[:, 0])
    return dict(zip(calls[known].tolist(), map(tuple, luck[known].tolist()), strict=True))


def _fits_by_upstream(history: History, until: float = math.inf) -> Fits:
    found: Fits = {}
    for name in history.upstreams:
        attempts = _sent(history, name, until)
        flights = flights_of(_sent(history, name, math.inf)).until(until)
        door = _door(history, name, until) | _cache(attempts)
        found[name] = [replace(fit, table=fit.table | door) for fit in fits(flights)]
    if not any(found.values()):
        where = "" if until == math.inf else " in the part that is fitted, the log's first 60 %"
        raise TooLittle(f"too few replies have ended{where}: at least 20 must, at one upstream")
    return found


def _cache(attempts: list[Attempt]) -> dict[str, Any]:
    """Return the share of prompts that a prompt cache held, if replies state any."""
    stated = [a for a in attempts if a.cached_tokens is not None]
    prompts = sum(a.prompt_tokens for a in stated)
    cached = sum(a.cached_tokens or 0 for a in stated)
    if not cached or not prompts:
        return {}
    return {"cached_share": round(min(1.0, cached / (CACHED_PART * prompts)), 4)}


def _door(history: History, name: str, until: float) -> dict[str, Any]:
    """Return what the upstream refuses at its door, as keys of its table.

    Where nothing was refused until then, that is no witness that there are no limits: they are
    those of the whole log.
    """
    limits = _limits(history, name, until) or _limits(history, name, math.inf)
    troubles = troubles_of(_sent(history, name, until))
    found: dict[str, Any] = {} if limits is None else {"limits": limits}
    return found | ({"faults": troubles} if troubles else {})


def _limits(history: History, name: str, until: float) -> dict[str, Any] | None:
    stated = [
        event
        for at, event in history.events
        if isinstance(event, LimitsSeen) and event.upstream == name and at < until
    ]
    return limits_of(_sent(history, name, until), history.calls, stated)


def _sent(history: History, name: str, until: float) -> list[Attempt]:
    return [a for a in history.attempts if a.upstream == name and a.sent_at < until]


def _kinds(found: Fits, early: Fits) -> list[str]:
    """Return the kinds that tell the ends of replies at the busiest upstream as well as any.

    The plainest first: what a kind with more numbers makes of a load that was never seen may be
    far from anything, where a plainer one tells as much of what was.
    """
    most = max(found.values(), key=lambda fits: len(fits[0].told.errors) if fits else 0)
    known = {fit.kind for each in early.values() for fit in each}
    most = [fit for fit in most if fit.kind in known]
    as_good = [fit.kind for fit in most if fit.as_good_as(most[0])]
    return sorted(as_good, key=_PLAINEST.index)[:_KINDS_TRIED]


def _tables(found: Fits, kind: str) -> dict[str, dict[str, Any]]:
    """Return each upstream's table of that kind; of one that was hardly used, another's."""
    known = {n: _table_of(f, kind) for n, f in found.items() if any(x.kind == kind for x in f)}
    spare = next(iter(known.values()))
    return {name: known.get(name, spare) for name in found}


def _table_of(found: list[Fit], kind: str) -> dict[str, Any]:
    return dict(next(fit.table for fit in found if fit.kind == kind))
