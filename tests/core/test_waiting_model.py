"""A queue and a provider that shares make themselves known by the latencies of what they hold."""

import pytest

from penstock.core.flight_log import FlightLog
from penstock.core.waiting_model import WaitingModel

PLACES = 4
SERVICE_S = (0.4, 1.0, 0.6, 1.6, 0.3, 0.9, 0.5, 1.2)


def judged(crowds: int, *, shares: bool) -> WaitingModel:
    """Return what a model thinks after crowds of 8 that were served by 4 places."""
    log, model, now = FlightLog(), WaitingModel(), 0.0
    for _ in range(crowds):
        flights = [log.sent(id_, id_ + 1, now=now) for id_ in range(len(SERVICE_S))]
        ends = _shared(now) if shares else _queued(now)
        for id_ in sorted(range(len(ends)), key=lambda each: ends[each]):
            at = ends[id_]
            log.replied(now=at)
            mean_n = log.mean_in_flight(flights[id_], now=at)
            times_s = (SERVICE_S[id_], at - now)
            ended = log.replies_in(now, at - now - SERVICE_S[id_], nearest=True)
            late = times_s[1] > 1.05 * times_s[0]
            estimates = (id_ + 1 - max(1, ended), max(1, round(mean_n * times_s[0] / times_s[1])))
            model.saw(flights[id_], mean_n, *times_s, *(estimates if late else ()))
            log.landed(id_, len(ends) - 1, now=at)
            if late:
                model.compare(log)
        now += 100.0
    return model


def _queued(start: float) -> list[float]:
    free, ends = [start] * PLACES, []
    for service_s in SERVICE_S:
        place = min(range(PLACES), key=lambda each: free[each])
        free[place] += service_s
        ends.append(free[place])
    return ends


def _shared(start: float) -> list[float]:
    left, ends, now = dict(enumerate(SERVICE_S)), [0.0] * len(SERVICE_S), start
    while left:
        speed = min(1.0, PLACES / len(left))
        first = min(left, key=lambda each: left[each])
        span_s = left[first] / speed
        now += span_s
        left = {id_: rest - span_s * speed for id_, rest in left.items() if id_ != first}
        ends[first] = now
    return ends


def test_a_queue_is_known_as_one() -> None:
    model = judged(4, shares=False)

    assert model.sharing < 0.3
    assert model.capacity(4.0, 2.0, 8.0) == 4.0


def test_a_provider_that_shares_is_known_as_one() -> None:
    model = judged(4, shares=True)

    assert model.is_sharing
    assert model.capacity(4.0, 5.0, 8.0) == 5.0


def test_undecided_the_larger_estimate_holds() -> None:
    assert WaitingModel().capacity(3.0, 5.0, 8.0) == 5.0
    assert WaitingModel().capacity(5.0, 3.0, 8.0) == 5.0


@pytest.mark.parametrize("sharing", [1.0, 2.0])
def test_one_reply_of_a_provider_that_shares_does_not_more_than_halve_the_window(
    sharing: float,
) -> None:
    model = WaitingModel()
    for _ in range(10):
        model.vote(True)

    assert model.capacity(8.0, sharing, 8.0) == 4.0


def test_a_few_late_ones_decide_nothing() -> None:
    assert judged(0, shares=True).sharing == 0.5
