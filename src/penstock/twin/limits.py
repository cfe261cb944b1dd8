"""What a provider refuses at its door: stated and unstated limits, and times of trouble."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.core.events import LimitsSeen
from penstock.twin.history import Attempt, Call, Floats

_LEAST_REFUSALS = 3
_MOST_BURST_S = 60.0
_STARTS_S = (5.0, 20.0, _MOST_BURST_S)
_NEAR = (0.5, 0.8, 0.9, 0.95, 0.98, 0.99, 0.997, 0.999, 1.001, 1.003, 1.01, 1.02, 1.05, 1.1, 1.2, 2)
_TURNS = 6
_WORTH_BOTH = 0.7
_UNEXPLAINED = 0.9
"""Of the refusals: buckets that explain fewer than a tenth of them are none."""
_GAP_S = 60.0
"""Refusals for overload that are further apart than this are two times of trouble."""
_STATED = (
    ("rpm", "limit_requests", "remaining_requests"),
    ("tpm", "limit_tokens", "remaining_tokens"),
    ("input_tpm", "limit_input_tokens", "remaining_input_tokens"),
    ("output_tpm", "limit_output_tokens", "remaining_output_tokens"),
)


@dataclass(frozen=True, slots=True)
class Knocks:
    """Attempts at one upstream's door, in order.

    Attributes:
        at: when. let_in: whether it was.
        requests, tokens: what each was charged for if it was let in.

    """

    at: Floats
    let_in: np.ndarray
    requests: Floats
    tokens: Floats


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
        np.array([a.sent_at for a in attempts]),
        np.array([a.end != "rate" for a in attempts]),
        np.ones(len(attempts)),
        np.array([float(calls[a.call].output_tokens + a.prompt_tokens) for a in attempts]),
    )
    silent = all(a.retry_after_s is None for a in refused)
    table, wrong = _best_buckets(knocks)
    if wrong > _UNEXPLAINED * len(refused):
        return None
    return table | ({"silent": True} if silent else {"dialect": "plain"})


def _best_buckets(knocks: Knocks) -> tuple[dict[str, Any], int]:
    """Return the limits that tell the knocks best, and how many they tell wrongly."""
    columns = {"rpm": knocks.requests, "tpm": knocks.tokens}
    one = min((_descent(knocks, {name: columns[name]}) for name in columns), key=lambda f: f[1])
    both = _descent(knocks, columns)
    return both if both[1] < _WORTH_BOTH * one[1] else one


def _descent(knocks: Knocks, columns: Mapping[str, Floats]) -> tuple[dict[str, Any], int]:
    """Return limits on these, and how many knocks they tell wrongly: one number after another."""
    start = {
        name: _rate(knocks, costs, 0.5 if len(columns) == 1 else 0.9)
        for name, costs in columns.items()
    }
    best, found = len(knocks.at) + 1, dict(start) | {"burst_s": _MOST_BURST_S}
    first_s = max(_first_burst_s(knocks, columns[name], rate) for name, rate in start.items())
    for burst_s in (first_s, *_STARTS_S):
        wrong, numbers = len(knocks.at) + 1, start | {"burst_s": burst_s}
        for _ in range(_TURNS):
            before = wrong
            for key, near in ((key, near) for key in numbers for near in _NEAR):
                tried = numbers | {key: numbers[key] * near}
                told = _wrong(knocks, columns, tried)
                if told < wrong:
                    wrong, numbers = told, tried
            if wrong == before:
                break
        if wrong < best:
            best, found = wrong, numbers
    table = {name: round(60.0 * found[name], 2) for name in columns}
    return table | {"burst_s": round(found["burst_s"], 2)}, best


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
    for name, limit, remaining in _STATED:
        limits = [getattr(s, limit) for s in stated if getattr(s, limit) is not None]
        left = [getattr(s, remaining) for s in stated if getattr(s, remaining) is not None]
        if limits and limits[-1] > 0:
            table[name] = limits[-1]
            full = _full(left) if left else limits[-1]
            # What holds one request holds one however short the burst is.
            (bursts_s if full > 1.0 else lone_s).append(60.0 * full / limits[-1])
    if not table:
        return None
    burst_s = round(min(_MOST_BURST_S, max(bursts_s or lone_s)), 2)
    return table | {"burst_s": burst_s, "dialect": "openai"}


def _full(left: Sequence[float]) -> float:
    """Return what a bucket holds when it is full: seen more than once, it was not just taken of."""
    most = max(left)
    often = sum(each > 0.999 * most for each in left) > 1
    return most if often else most + 1.0


def _rate(knocks: Knocks, costs: Floats, share: float = 0.5) -> float:
    """Return how much is let in a second between one refusal and the next: the bucket is empty.

    Of all such spans the quantile, by their length.
    """
    refused = np.flatnonzero(~knocks.let_in)
    spent = np.concatenate([[0.0], np.cumsum(np.where(knocks.let_in, costs, 0.0))])
    span_s = np.diff(knocks.at[refused])
    amount = np.diff(spent[refused])
    good = (span_s > 0) & (amount > 0)
    if not good.any():
        whole_s = max(float(knocks.at[-1] - knocks.at[0]), 1e-3)
        return max(float(spent[-1]) / whole_s, 1e-6)
    rates, weights = amount[good] / span_s[good], span_s[good]
    order = np.argsort(rates)
    place = int(np.searchsorted(np.cumsum(weights[order]), share * weights.sum()))
    return float(rates[order][min(place, len(order) - 1)])


def _first_burst_s(knocks: Knocks, costs: Floats, rate: float) -> float:
    """Return what a full bucket holds, in seconds of its rate, if the first refusal emptied it."""
    first = int(np.flatnonzero(~knocks.let_in)[0])
    spent_s = float(costs[:first].sum()) / rate
    return min(_MOST_BURST_S, max(1.0, spent_s - float(knocks.at[first] - knocks.at[0])))


def _wrong(knocks: Knocks, columns: Mapping[str, Floats], numbers: Mapping[str, float]) -> int:
    """Return how many knocks such buckets would have answered otherwise."""
    passes = np.ones(len(knocks.at), dtype=bool)
    for name, costs in columns.items():
        passes &= _passes(knocks, costs, numbers[name], numbers[name] * numbers["burst_s"])
    return int((passes != knocks.let_in).sum())


def _passes(knocks: Knocks, costs: Floats, rate: float, full: float) -> np.ndarray:
    """Return which knocks such a bucket would let in.

    It is charged for those let in really, and where it is wrong it is put right: or a rate that is
    off by a hundredth would soon tell nothing.
    """
    full = max(1.0, full)
    level, at = full, float(knocks.at[0])
    passes = []
    for now, cost, let_in in zip(
        knocks.at.tolist(), costs.tolist(), knocks.let_in.tolist(), strict=True
    ):
        level = min(full, level + (now - at) * rate)
        at = now
        needed = min(cost, full)
        passes.append(level >= needed - 1e-6)
        level = max(level, needed) - cost if let_in else min(level, needed)
    return np.array(passes)
