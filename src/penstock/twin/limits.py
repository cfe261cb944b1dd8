"""What a provider refuses at its door: stated and unstated limits, and times of trouble."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np

from penstock.core.events import LimitsSeen
from penstock.twin.history import Attempt, Call, Floats

_LEAST_REFUSALS = 3
_MOST_BURST_S = 60.0
_BURSTS_S = np.geomspace(1.0, _MOST_BURST_S, 30)
_MISSED = (0.0, 0.01, 0.05)
"""Of what was let in: what a reply is charged is not always its tokens."""
_MOST_TIMES, _HALVINGS = 2000.0, 16
"""A limit may be that many times what came on average, and is found to a ten-thousandth."""
_TURNS, _TRIED, _KEPT = 10, 100, 10
_ROUNDING_S = 1e-6
_WORTH_BOTH = 0.7
_UNEXPLAINED = 0.9
"""Of the refusals: buckets that explain fewer than a tenth of them are none."""
_GAP_S = 60.0
"""Refusals for overload that are further apart than this are two times of trouble."""
_STATED = (
    ("rpm", "requests"),
    ("tpm", "tokens"),
    ("input_tpm", "input_tokens"),
    ("output_tpm", "output_tokens"),
)
"""Limits by the names that headers have for them."""


@dataclass(frozen=True, slots=True)
class Knocks:
    """Attempts at one upstream's door, in order.

    Attributes:
        at: when. let_in: whether it was.

    """

    at: Floats
    let_in: np.ndarray


def limits_of(
    attempts: Sequence[Attempt], calls: Sequence[Call], stated: Sequence[LimitsSeen]
) -> dict[str, Any] | None:
    """Return the table of the limits that the upstream enforces; None if it seems to have none.

    What its headers state is believed. Of bare refusals a bucket is found that lets in what was
    let in and refuses what was refused, as far as one can.
    """
    refused = [a for a in attempts if a.end == "rate"]
    if stated:
        return _stated(stated)
    if len(refused) < _LEAST_REFUSALS:
        return None
    knocks = Knocks(
        np.array([a.sent_at for a in attempts]), np.array([a.end != "rate" for a in attempts])
    )
    tokens = [float(calls[a.call].output_tokens + a.prompt_tokens) for a in attempts]
    columns = {"rpm": np.ones(len(attempts)), "tpm": np.array(tokens)}
    table, wrong = _best_buckets(knocks, columns)
    silent = all(a.retry_after_s is None for a in refused)
    if wrong > _UNEXPLAINED * len(refused):
        return None
    return table | ({"silent": True} if silent else {"dialect": "plain"})


def _best_buckets(knocks: Knocks, columns: Mapping[str, Floats]) -> tuple[dict[str, Any], int]:
    """Return the limits that tell the knocks best, and how many they tell wrongly.

    Args:
        knocks: at the door.
        columns: what each was charged for if it was let in, by the limit's name.

    """
    one = min((_found(knocks, {name: columns[name]}) for name in columns), key=lambda f: f[1])
    both = _found(knocks, columns)
    return both if both[1] < _WORTH_BOTH * one[1] else one


def _found(knocks: Knocks, columns: Mapping[str, Floats]) -> tuple[dict[str, Any], int]:
    """Return limits on these, and how many knocks they tell wrongly.

    Of those that tell as many the middle: the search meets the edges of what the knocks allow.

    Source:
        The cross-entropy method: Rubinstein, Methodol. Comput. Appl. Probab. 1(2), 1999.

    """
    costs = np.stack(list(columns.values()), axis=1)
    tried = _least(knocks, costs)
    dice = np.random.default_rng(0)
    fewest, good = len(knocks.at) + 1, tried
    for _ in range(_TURNS):
        wrong, off_s = _told(knocks, costs, tried)
        least = tried[wrong == wrong.min()]
        good = np.concatenate([good, least]) if wrong.min() == fewest else good
        if wrong.min() < fewest:
            fewest, good = int(wrong.min()), least
        best = np.log(tried[np.lexsort((off_s, wrong))[:_KEPT]])
        drawn = dice.standard_normal((_TRIED, tried.shape[1]))
        tried = np.exp(best.mean(axis=0) + best.std(axis=0) * drawn)
        tried[:, -1] = np.minimum(tried[:, -1], _MOST_BURST_S)
    middle = np.exp(np.log(good).mean(axis=0))
    found = middle if _told(knocks, costs, middle[None])[0][0] <= fewest else good[0]
    table = {name: 60.0 * float(rate) for name, rate in zip(columns, found, strict=False)}
    return table | {"burst_s": float(found[-1])}, fewest


def _least(knocks: Knocks, costs: Floats) -> Floats:
    """Return trials: for many bursts the least rates that let in what was let in, or nearly all.

    A bucket that lets in more refuses less, so that the least rate explains the most refusals, each
    bucket by itself.
    """
    bursts_s, missed = (each.ravel() for each in np.meshgrid(_BURSTS_S, _MISSED, indexing="ij"))
    came = knocks.let_in
    served = Knocks(knocks.at[came], came[came])
    rates = []
    for column in costs[came].T:
        whole_s = served.at[-1] - served.at[0] + bursts_s
        low = np.log(column.sum() / whole_s / 2.0)
        high = low + math.log(_MOST_TIMES)
        for _ in range(_HALVINGS):
            middle = (low + high) / 2.0
            wrong, _ = _told(served, column[:, None], np.stack([np.exp(middle), bursts_s], axis=1))
            enough = wrong <= missed * len(served.at)
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        rates.append(np.exp(high).reshape(len(_BURSTS_S), len(_MISSED)))
    choices = list(product(range(len(_MISSED)), repeat=len(rates)))
    return np.array(
        [
            [*(rate[n, m] for rate, m in zip(rates, chosen, strict=True)), burst_s]
            for n, burst_s in enumerate(_BURSTS_S)
            for chosen in choices
        ]
    )


def troubles_of(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Return the times in which the provider answered 503 or 529, as windows of faults."""
    refused = np.array([a.sent_at for a in attempts if a.end == "overload"])
    if len(refused) < _LEAST_REFUSALS:
        return []
    sent = np.array([a.sent_at for a in attempts])
    windows = []
    for piece in np.split(refused, np.flatnonzero(np.diff(refused) > _GAP_S) + 1):
        first, last = float(piece[0]), float(piece[-1]) + 0.001
        met = int(((sent >= first) & (sent <= last)).sum())
        windows.append(
            {
                "kind": "status",
                "status": 503,
                "from_s": round(first, 3),
                "until_s": round(last, 3),
                "share": round(min(1.0, len(piece) / met), 3),
            }
        )
    return windows


def _stated(stated: Sequence[LimitsSeen]) -> dict[str, Any] | None:
    """Return the limits that headers gave, and how much of one may come at once."""
    table: dict[str, Any] = {}
    bursts_s: list[float] = []
    lone_s: list[float] = []
    for name, what in _STATED:
        limits = [s for s in (getattr(s, f"limit_{what}") for s in stated) if s is not None]
        if limits and limits[-1] > 0:
            table[name] = limits[-1]
            full = _full(stated, what, limits[-1])
            # What holds one request holds one however short the burst is.
            (bursts_s if full > 1.0 else lone_s).append(60.0 * full / limits[-1])
    if not table:
        return None
    burst_s = round(min(_MOST_BURST_S, max(bursts_s or lone_s)), 2)
    return table | {"burst_s": burst_s, "dialect": "openai"}


def _full(stated: Sequence[LimitsSeen], what: str, limit: float) -> float:
    """Return what a bucket holds when it is full: what is left, and what comes until it is full.

    Where nobody states when that is, the most that was left: seen more than once, it was not just
    taken of.
    """
    left = [
        (getattr(s, f"remaining_{what}"), getattr(s, f"reset_{what}_s"))
        for s in stated
        if getattr(s, f"remaining_{what}") is not None
    ]
    fulls = [remaining + reset_s * limit / 60.0 for remaining, reset_s in left if reset_s]
    if fulls:
        return float(np.median(fulls))
    most = max((remaining for remaining, _ in left), default=limit)
    often = sum(remaining > 0.999 * most for remaining, _ in left) != 1
    return most if often else most + 1.0


def _told(knocks: Knocks, costs: Floats, tried: Floats) -> tuple[Floats, Floats]:
    """Return how many knocks such buckets would have answered otherwise, and by how much.

    They are charged for those let in really, and where they are wrong they are put right: or a rate
    that is off by a hundredth would soon tell nothing. One that was refused and would be let in was
    refused by the bucket that is nearest to it: the others keep what they hold.

    Args:
        knocks: at the door.
        costs: a row for each, a column for each bucket.
        tried: a row for each trial: the buckets' rates, and how many seconds of them they hold.

    """
    rates = tried[:, :-1]
    full = np.maximum(1.0, rates * tried[:, -1:])
    level, at = full.copy(), float(knocks.at[0])
    wrong, off_s = np.zeros(len(tried)), np.zeros(len(tried))
    for now, let_in, cost in zip(knocks.at.tolist(), knocks.let_in.tolist(), costs, strict=True):
        level = np.minimum(full, level + (now - at) * rates)
        at = now
        needed = np.minimum(cost, full)
        spare_s = (level - needed) / rates
        least_s = spare_s.min(axis=1)
        wrong += (least_s >= -_ROUNDING_S) != let_in
        if let_in:
            off_s -= np.minimum(least_s, 0.0)
            level = np.maximum(level, needed) - cost
        else:
            over_s = np.maximum(least_s, 0.0)
            off_s += over_s
            level = np.where(spare_s == least_s[:, None], level - over_s[:, None] * rates, level)
    return wrong, off_s
