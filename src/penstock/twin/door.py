"""What a provider refuses at its door: stated and unstated limits, and times of trouble."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.core.events import LimitsSeen
from penstock.twin.history import Attempt, Call, Floats

_LEAST_REFUSALS = 3
_BURSTS_S = tuple(float(each) for each in np.geomspace(1.0, 120.0, 14).round(1))
_AROUND = (0.94, 0.97, 0.985, 1.0, 1.015, 1.03, 1.06)
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
    by_requests = _bucket(knocks, knocks.requests)
    by_tokens = _bucket(knocks, knocks.tokens)
    name = "rpm" if by_requests[0] <= by_tokens[0] else "tpm"
    wrong, rate, burst_s = min(by_requests, by_tokens)
    if wrong > 0.9 * len(refused):
        return None  # no bucket explains them
    table: dict[str, Any] = {name: round(60.0 * rate, 2), "burst_s": burst_s}
    return table | ({"silent": True} if silent else {"dialect": "plain"})


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
    bursts_s = []
    for name, limit, remaining in _STATED:
        limits = [getattr(s, limit) for s in stated if getattr(s, limit) is not None]
        left = [getattr(s, remaining) for s in stated if getattr(s, remaining) is not None]
        if limits and limits[-1] > 0:
            table[name] = limits[-1]
            bursts_s.append(60.0 * _full(left) / limits[-1] if left else 60.0)
    if not table:
        return None
    return table | {"burst_s": round(min(60.0, max(bursts_s)), 2), "dialect": "openai"}


def _full(left: Sequence[float]) -> float:
    """Return what a bucket holds when it is full: seen more than once, it was not just taken of."""
    most = max(left)
    often = sum(each > 0.999 * most for each in left) > 1
    return most if often else most + 1.0


def _bucket(knocks: Knocks, costs: Floats) -> tuple[int, float, float]:
    """Return (wrongly told knocks, rate a second, seconds' worth that it holds) of the best one."""
    rate = _rate(knocks, costs)
    tried = [
        (_wrong(knocks, costs, rate * near, rate * near * burst_s), near, burst_s)
        for burst_s in _BURSTS_S
        for near in ((1.0,) if burst_s != _BURSTS_S[0] else _AROUND)
    ]
    best = min(tried, key=lambda each: (each[0], abs(each[1] - 1.0)))
    finer = [
        (_wrong(knocks, costs, rate * near, rate * near * burst_s), near, burst_s)
        for burst_s in (round(best[2] * times, 1) for times in (0.8, 0.9, 1.0, 1.1, 1.2))
        for near in _AROUND
    ]
    wrong, near, burst_s = min(finer, key=lambda each: (each[0], abs(each[1] - 1.0)))
    return wrong, rate * near, max(0.1, burst_s)


def _rate(knocks: Knocks, costs: Floats) -> float:
    """Return how much is let in a second between one refusal and the next: the bucket is empty."""
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
    place = int(np.searchsorted(np.cumsum(weights[order]), 0.5 * weights.sum()))
    return float(rates[order][place])


def _wrong(knocks: Knocks, costs: Floats, rate: float, full: float) -> int:
    """Return how many knocks such a bucket would have answered otherwise."""
    full = max(1.0, full)
    level, at, wrong = full, float(knocks.at[0]), 0
    for now, cost, let_in in zip(
        knocks.at.tolist(), costs.tolist(), knocks.let_in.tolist(), strict=True
    ):
        level = min(full, level + (now - at) * rate)
        at = now
        passes = level >= min(cost, full) - 1e-6
        wrong += passes != let_in
        if let_in:
            level -= cost
    return wrong
