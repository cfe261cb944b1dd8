"""What luck each attempt had: what a model leaves of its time, less what the load tells of that.

A replay that keeps each call's luck tells any log again, whatever its model: a model without a
queue takes the waiting for bad luck. But luck does not know how many flew. What of it they tell is
the model's fault, and is left out, so that the replay shows it.
"""

import math

import numpy as np

from penstock.twin.flights import AttemptTimes
from penstock.twin.history import Floats
from penstock.twin.service_line import scale_of
from penstock.twin.told import Told

STRETCH = 20
"""Attempts: within so many in a row a provider's own slow and fast times are one level."""
_CLEARLY = 3.0
"""Standard errors: at 2, one right model in twenty would be blamed."""
NO_DIFFERENCE = 0.005
"""Of a logarithm: half a per cent of a reply's time. Where nothing is luck, rounding alone is
clear."""
_OUTLIER = 4.0


def luck_after(told: Told, flights: AttemptTimes, since: float) -> Floats:
    """Return the luck of the attempts; of those sent after `since`, less what the load tells of it.

    Source:
        The within estimator of panel data (Mundlak, Econometrica 46, 1978): the slope on the load
        inside stretches of time, so that no slow time of the provider's own takes part in it.

    """
    known = np.isfinite(told.luck[:, 0]) & flights.whole
    later = known & (flights.sent > since)
    before = known & (flights.sent <= since)
    if not before.any() or later.sum() < 2 * STRETCH:
        return told.luck
    pieces = np.array_split(np.flatnonzero(later), int(later.sum()) // STRETCH)
    load = np.log(flights.ahead)
    factor = np.log(told.factors(flights))
    x = np.concatenate([load[p] - load[p].mean() for p in pieces])
    y = np.concatenate([factor[p] - np.median(factor[p]) for p in pieces])
    bound = _OUTLIER * scale_of(y)
    y = y.clip(-bound, bound)
    across = float(x @ x)
    if across == 0.0:
        return told.luck
    slope = float(x @ y) / across
    error = math.sqrt(float(((y - slope * x) ** 2).mean()) / across)
    if abs(slope) <= _CLEARLY * error:
        return told.luck
    usual = float(np.median(load[before]))
    told_by_load = np.where(later, slope * (load - usual), 0.0)
    if float(np.abs(told_by_load[later]).mean()) < NO_DIFFERENCE:
        return told.luck
    return np.asarray(told.luck * np.exp(-told_by_load)[:, None])
