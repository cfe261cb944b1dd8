"""Replicas behind a balancer: which one had each attempt, if the routing leaves no chance."""

import math
from heapq import heappop, heappush

import numpy as np

from penstock.twin.flights import AttemptTimes
from penstock.twin.history import Floats

ROUTINGS = ("round_robin", "least")
MOST_REPLICAS = 32


def assigned(flights: AttemptTimes, replicas: int, routing: str) -> np.ndarray:
    """Return the replica of each attempt, from 0."""
    count = len(flights.sent)
    if routing == "round_robin":
        return np.arange(count) % replicas
    loads = [0] * replicas
    flying: list[tuple[float, int]] = []
    chosen = np.zeros(count, dtype=np.int64)
    for n, (sent, ended) in enumerate(
        zip(flights.sent.tolist(), flights.ended.tolist(), strict=True)
    ):
        while flying and flying[0][0] <= sent:
            loads[heappop(flying)[1]] -= 1
        replica = loads.index(min(loads))
        loads[replica] += 1
        chosen[n] = replica
        if ended < math.inf:
            heappush(flying, (ended, replica))
    return chosen


def starts(flights: AttemptTimes, chosen: np.ndarray, slots: int) -> Floats:
    """Return when each was taken out of its replica's queue; nan where the log ends before.

    Source:
        The k-th at a replica starts at the (k - slots)-th end there, if it came before that.

    """
    found = flights.sent.copy()
    for replica in range(int(chosen.max()) + 1):
        mine = np.flatnonzero(chosen == replica)
        ends = np.full(len(mine), math.nan)
        seen = np.sort(flights.ended[mine][np.isfinite(flights.ended[mine])])
        ends[: len(seen)] = seen
        behind = mine[slots:]
        found[behind] = np.maximum(found[behind], ends[: len(behind)])
    return found


def most_at_one(flights: AttemptTimes, chosen: np.ndarray) -> int:
    """Return the most attempts that ever were at one replica."""
    most = 0
    for replica in range(int(chosen.max()) + 1):
        mine = chosen == replica
        gone = np.searchsorted(np.sort(flights.ended[mine]), flights.sent[mine], side="right")
        most = max(most, int((np.arange(1, len(gone) + 1) - gone).max(initial=0)))
    return most
