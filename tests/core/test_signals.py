"""What the scheduler senses: load, pressure, slowdown, demand - and severity out of them."""

import math

import pytest

from penstock.core.signals import (
    LOAD_SHARE,
    PATIENCE_S,
    PRESSURE_SHARE,
    SILENCE,
    SLOWDOWN_SHARE,
    SMOOTHING_S,
    Signals,
)
from penstock.core.ticket import Ticket, ticket_of
from tests.core.story import request


def ticket(id_: int, work_s: float, *, deadline: float = math.inf) -> Ticket:
    return ticket_of(request(id_, deadline=deadline), work_s, work_s)


def arrived(signals: Signals, *tickets: Ticket, now: float = 0.0) -> None:
    for one in tickets:
        signals.arrived(one, now=now)


def reply(signals: Signals, one: Ticket, ratio: float) -> None:
    """Let a reply be back after its predicted service time, at this ratio of what it explains."""
    one.dispatched_at = 0.0
    signals.replied(one, ratio, now=one.service_p50_s)


def test_an_idle_lane_has_no_severity() -> None:
    signals = Signals(window=4.0)

    assert signals.refresh(now=0.0) == 0.0


def test_load_is_the_work_in_flight_over_what_the_window_holds() -> None:
    signals = Signals(window=4.0)
    tickets = [ticket(id_, 2.0) for id_ in range(4)]
    arrived(signals, *tickets)
    for one in tickets[:2]:
        signals.departed(one)

    assert signals.refresh(now=0.0) == pytest.approx(LOAD_SHARE * 0.5)


def test_pressure_is_waiting_work_over_what_fits_before_its_deadlines() -> None:
    signals = Signals(window=2.0)
    tickets = [ticket(id_, 1.0, deadline=11.0) for id_ in range(8)]
    arrived(signals, *tickets)
    for one in tickets:
        signals.queued(one)
    signals.refresh(now=0.0)

    assert signals.pressure == pytest.approx(8.0 / (2.0 * 10.0))
    assert signals.severity == pytest.approx(PRESSURE_SHARE * 0.4)


def test_pressure_is_one_when_what_waits_cannot_be_done_in_time() -> None:
    signals = Signals(window=1.0)
    tickets = [ticket(id_, 1.0, deadline=3.0) for id_ in range(3)]
    arrived(signals, *tickets)
    for one in tickets:
        signals.queued(one)
    signals.refresh(now=0.0)

    assert signals.pressure == 1.0


def test_what_is_late_already_presses_nobody() -> None:
    signals = Signals(window=1.0)
    late, early = ticket(1, 1.0, deadline=3.0), ticket(2, 1.0, deadline=101.0)
    arrived(signals, late, early)
    signals.queued(late)
    signals.queued(early)
    signals.refresh(now=50.0)

    assert signals.pressure == pytest.approx(1.0 / 50.0)
    signals.unqueued(late)
    signals.unqueued(early)
    assert (signals.pressure, signals.waiting_work_s) == (0.0, 0.0)


def test_without_a_deadline_patience_is_long_but_not_endless() -> None:
    signals = Signals(window=1.0)
    one = ticket(1, 1.0)
    arrived(signals, one)
    signals.queued(one)
    signals.refresh(now=0.0)

    assert signals.pressure == pytest.approx(1.0 / (PATIENCE_S - 1.0))


def test_slowdown_counts_replies_that_took_longer_than_their_length_explains() -> None:
    signals = Signals(window=1.0)
    one = ticket(1, 1.0)
    arrived(signals, one)
    for _ in range(200):
        reply(signals, one, 1.5)
    assert signals.slowdown == pytest.approx(0.5)
    assert signals.refresh(now=0.0) == pytest.approx(SLOWDOWN_SHARE * 0.5)

    for _ in range(200):
        reply(signals, one, 0.8)  # faster than expected is not negative slowdown
    assert signals.slowdown == pytest.approx(0.0, abs=1e-6)


def test_severity_moves_with_its_time_constant() -> None:
    signals = Signals(window=1.0)
    signals.refresh(now=0.0)
    one = ticket(1, 1.0)
    arrived(signals, one)
    signals.departed(one)

    signals.refresh(now=SMOOTHING_S)

    assert signals.severity == pytest.approx(LOAD_SHARE * (1.0 - math.exp(-1.0)))
    assert signals.refresh(now=SMOOTHING_S) == signals.severity  # a second look changes nothing


def test_severity_ends_at_one() -> None:
    signals = Signals(window=1.0)
    tickets = [ticket(id_, 5.0, deadline=1.0) for id_ in range(2)]
    hopeful = ticket(9, 5.0, deadline=5.0)
    arrived(signals, *tickets, hopeful)
    for one in tickets:
        signals.departed(one)
    signals.queued(hopeful)
    for _ in range(200):
        reply(signals, hopeful, 90.0)

    assert signals.refresh(now=0.0) == pytest.approx(1.0)


def test_demand_is_what_replies_took_and_not_what_was_predicted_for_them() -> None:
    signals = Signals(window=8.0)
    one = ticket(1, 4.0)
    for _ in range(64):
        arrived(signals, one)
        reply(signals, one, 8.0)  # predicted at 4 s, its real length explains 0.5 s
    arrived(signals, one)

    demand = signals.classes["batch"]
    assert 0.5 < demand.service_s < 1.0
    assert demand.offered(now=0.0) == pytest.approx(65 * demand.service_s, rel=0.1)


def test_without_a_window_nothing_loads_and_nothing_presses() -> None:
    signals = Signals()
    one, two = ticket(1, 5.0), ticket(2, 5.0)
    arrived(signals, one, two)
    signals.departed(one)
    signals.queued(two)

    assert signals.refresh(now=0.0) == pytest.approx(0.0, abs=1e-6)


def test_offered_load_is_the_arrival_rate_times_the_service_time() -> None:
    signals = Signals()
    for id_ in range(2000):
        arrived(signals, ticket(id_, 2.0, deadline=id_ / 10 + 9.0), now=id_ / 10)
    demand = signals.demand("batch")

    assert demand.offered(now=200.0) == pytest.approx(20.0, rel=0.05)
    assert demand.service_s == pytest.approx(2.0)
    assert demand.offered(now=400.0) < 0.01  # they stopped coming


def test_a_class_that_never_sent_anything_offers_nothing() -> None:
    assert Signals().demand("batch").offered(now=5.0) == 0.0


def test_all_counters_are_back_at_zero_when_all_have_gone() -> None:
    signals = Signals(window=3.0)
    tickets = [ticket(id_, 0.1 * id_, deadline=id_) for id_ in range(1, 9)]
    arrived(signals, *tickets)
    for one in tickets:
        signals.queued(one)
    for one in tickets:
        signals.unqueued(one)
        signals.departed(one)
    for one in tickets:
        signals.landed(one)

    assert (signals.waiting, signals.in_flight) == (0, 0)
    assert (signals.waiting_work_s, signals.in_flight_work_s, signals.pressure) == (0.0, 0.0, 0.0)


def test_a_crowd_that_came_at_once_and_nobody_since_is_no_stream() -> None:
    signals = Signals(window=8.0)
    arrived(signals, *[ticket(id_, 0.5) for id_ in range(120)])
    demand = signals.demand("batch")

    assert demand.offered(now=0.1) > 8.0
    assert demand.offered(now=6.0) == pytest.approx(SILENCE * 0.5 / 6.0)


def test_the_pauses_of_a_steady_stream_are_no_silence() -> None:
    signals = Signals(window=8.0)
    for second in range(60):
        arrived(signals, ticket(second, 0.5), now=float(second))
    demand = signals.demand("batch")

    assert demand.offered(now=59.5) == pytest.approx(0.5, rel=0.1)
    assert demand.offered(now=61.5) == pytest.approx(0.5, rel=0.15)
