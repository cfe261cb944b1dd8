"""Refusals of four kinds and faults: how long an upstream is left alone, and how it comes back."""

import pytest

from penstock.core.events import RefusalCause
from penstock.core.upstream.breaker import CircuitBreaker

DAY_S = 86_400.0


def refuse(
    circuit: CircuitBreaker,
    cause: RefusalCause,
    *,
    at: float,
    sent_at: float | None = None,
    retry_after_s: float | None = None,
    jitter: float = 0.5,
) -> None:
    sent = at if sent_at is None else sent_at
    circuit.refused(
        cause,
        sent_at=sent,
        retry_after_s=circuit.waits_s(cause, retry_after_s, sent)[1],
        jitter=jitter,
        lone=circuit.is_lone(cause, sent),
        now=at,
    )


def test_a_rate_refusal_pauses_for_as_long_as_it_says_and_asks_for_no_probation() -> None:
    circuit = CircuitBreaker()
    refuse(circuit, RefusalCause.RATE, at=10.0, retry_after_s=1.5)

    assert circuit.open_at(now=10.0) == 11.5
    assert not circuit.half_open
    assert circuit.troubled


def test_a_rate_refusal_after_it_kept_its_word_backs_off_and_is_probed() -> None:
    circuit = CircuitBreaker()
    refuse(circuit, RefusalCause.RATE, at=10.0, retry_after_s=0.1)
    refuse(circuit, RefusalCause.RATE, at=11.0, retry_after_s=0.1, jitter=0.9)

    assert circuit.open_at(now=11.0) == pytest.approx(11.0 + 0.9 * 2.0)
    assert circuit.half_open


def test_a_spent_quota_closes_the_upstream_until_its_reset_and_is_never_slept_on() -> None:
    circuit = CircuitBreaker(max_pause_s=9 * DAY_S)
    refuse(circuit, RefusalCause.QUOTA, at=10.0, retry_after_s=2 * DAY_S)

    assert circuit.exhausted_until > 10.0
    assert circuit.open_at(now=10.0) == 10.0 + 2 * DAY_S
    assert circuit.exhausted_until <= 11.0 + 2 * DAY_S


def test_after_a_spent_quota_it_is_probed() -> None:
    circuit = CircuitBreaker()
    refuse(circuit, RefusalCause.QUOTA, at=10.0, retry_after_s=60.0)
    assert circuit.half_open

    circuit.succeeded(sent_at=70.0)
    assert not circuit.half_open


def test_a_rate_refusal_of_minutes_is_a_pause_and_no_quota() -> None:
    circuit = CircuitBreaker()
    refuse(circuit, RefusalCause.RATE, at=0.0, retry_after_s=500.0)

    assert circuit.exhausted_until < 1.0
    assert circuit.open_at(now=1.0) == circuit.closed_to_some_until == 500.0
    assert circuit.half_open


def test_a_rate_refusal_of_days_is_a_spent_quota() -> None:
    circuit = CircuitBreaker(max_pause_s=9 * DAY_S)
    refuse(circuit, RefusalCause.RATE, at=0.0, retry_after_s=DAY_S)

    assert circuit.exhausted_until > DAY_S - 1.0


@pytest.mark.parametrize("cause", [RefusalCause.OVERLOAD, RefusalCause.SLOW_FIRST_TOKEN])
def test_overload_backs_off_with_full_jitter_up_to_a_cap(cause: RefusalCause) -> None:
    circuit, now, waits = CircuitBreaker(), 0.0, []
    for _ in range(8):
        refuse(circuit, cause, at=now, jitter=0.5)
        waits.append(circuit.open_at(now=now) - now)
        now = circuit.open_at(now=now)

    assert waits == [0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]
    assert circuit.half_open


def test_the_same_bad_news_from_one_flight_counts_once() -> None:
    circuit = CircuitBreaker()
    for id_ in range(50):
        refuse(circuit, RefusalCause.OVERLOAD, at=1.0 + id_ / 1000.0, sent_at=0.5, jitter=0.5)

    assert circuit.open_at(now=1.05) <= 1.0 + 0.049 + 0.5 + 1e-9


def test_a_success_sent_after_the_bad_news_ends_it() -> None:
    circuit = CircuitBreaker()
    refuse(circuit, RefusalCause.OVERLOAD, at=5.0)
    circuit.succeeded(sent_at=4.0)  # it was under way before
    assert circuit.half_open

    circuit.succeeded(sent_at=6.0)
    assert not circuit.half_open
    assert not circuit.troubled


def test_single_faults_are_forgiven_but_three_in_a_row_take_the_upstream_out() -> None:
    circuit = CircuitBreaker()
    circuit.failed(sent_at=0.0, jitter=0.5, now=1.0)
    circuit.failed(sent_at=1.0, jitter=0.5, now=2.0)
    assert circuit.open_at(now=2.0) == 2.0

    circuit.succeeded(sent_at=2.0)
    for at in (3.0, 4.0, 5.0):
        circuit.failed(sent_at=at - 0.5, jitter=0.5, now=at)
    assert circuit.open_at(now=5.0) == 5.5
    assert circuit.half_open


def answered(times: int) -> CircuitBreaker:
    circuit = CircuitBreaker()
    for number in range(times):
        circuit.succeeded(sent_at=float(number))
    return circuit


def test_a_few_overload_refusals_among_answers_stop_it_for_a_moment_only() -> None:
    circuit = answered(20)
    for at in (100.0, 110.0, 120.0):
        refuse(circuit, RefusalCause.OVERLOAD, at=at, jitter=0.8)

        assert circuit.open_at(now=at) == pytest.approx(at + 0.2)
        assert not circuit.half_open
        for more in range(5):
            circuit.succeeded(sent_at=at + 1.0 + more)


def test_where_most_are_refused_and_some_are_not_probes_are_as_close_as_chance_asks() -> None:
    circuit = CircuitBreaker()
    for at in range(100):
        if at % 4 == 3:
            circuit.succeeded(sent_at=float(at))
        else:
            refuse(circuit, RefusalCause.OVERLOAD, at=float(at))
    for at in range(100, 120):
        refuse(circuit, RefusalCause.OVERLOAD, at=float(at), jitter=1.0)
    probes = circuit.open_at(now=119.0) - 119.0, circuit.gap_s

    assert circuit.half_open
    assert probes == pytest.approx((2.0 / 9.0,) * 2)  # 0.72 to the ninth power is 0.05


def test_an_overloads_wait_of_hours_is_believed_by_others_for_a_moment() -> None:
    circuit = CircuitBreaker()
    refuse(circuit, RefusalCause.OVERLOAD, at=10.0, retry_after_s=3600.0)

    assert circuit.open_at(now=10.0) == pytest.approx(12.0)
    assert max(circuit.closed_to_some_until, circuit.exhausted_until) < 10.0


def test_two_overload_refusals_in_a_row_are_an_overload() -> None:
    circuit = answered(20)
    refuse(circuit, RefusalCause.OVERLOAD, at=100.0)
    refuse(circuit, RefusalCause.OVERLOAD, at=101.0, jitter=0.9)

    assert circuit.open_at(now=101.0) == pytest.approx(101.0 + 0.9 * 2.0)
    assert circuit.half_open


def test_what_is_refused_at_once_is_one_piece_of_news_and_the_next_one_is_the_second() -> None:
    """Where many are refused at random, whole handfuls are, and a pause for all costs more."""
    circuit = answered(20)
    for _ in range(8):
        refuse(circuit, RefusalCause.OVERLOAD, at=100.0, sent_at=99.0)
    assert not circuit.half_open

    refuse(circuit, RefusalCause.OVERLOAD, at=101.0, sent_at=100.5)
    assert circuit.half_open


def test_as_many_refusals_in_a_row_are_chance_as_the_share_at_the_last_answer_explains() -> None:
    circuit, now = answered(20), 100.0
    for _ in range(20):
        refuse(circuit, RefusalCause.OVERLOAD, at=now)
        circuit.succeeded(sent_at=now + 0.5)
        now += 1.0
    in_a_row = 0
    while not circuit.half_open:
        now, in_a_row = now + 1.0, in_a_row + 1
        refuse(circuit, RefusalCause.OVERLOAD, at=now)

    assert in_a_row == 6  # at a share of 0.4 five are no rarer than one in a hundred


def test_an_upstream_that_nobody_knows_yet_gets_no_benefit_of_the_doubt() -> None:
    circuit = answered(1)
    refuse(circuit, RefusalCause.OVERLOAD, at=100.0)

    assert circuit.half_open


def test_whoever_was_sent_most_often_probes_last_but_half_a_second_later_at_most() -> None:
    circuit = answered(1)
    refuse(circuit, RefusalCause.OVERLOAD, at=100.0)
    at = [circuit.probe_at(attempts) for attempts in (1, 2, 3, 10_000)]

    assert at == sorted(set(at))
    assert at[-1] - at[0] <= 0.5


def test_two_answers_are_enough_to_take_one_refusal_for_chance() -> None:
    circuit = answered(2)

    assert circuit.is_lone(RefusalCause.RATE, 100.0)


def test_a_wait_that_an_overload_refusal_asks_for_binds_others_for_two_seconds() -> None:
    circuit = answered(20)
    refuse(circuit, RefusalCause.OVERLOAD, at=100.0, retry_after_s=20.0)
    assert circuit.open_at(now=100.0) < 101.0

    refuse(circuit, RefusalCause.OVERLOAD, at=101.0, retry_after_s=20.0)
    assert circuit.open_at(now=101.0) == 103.0
    refuse(circuit, RefusalCause.OVERLOAD, at=103.0, retry_after_s=20.0)
    assert circuit.open_at(now=103.0) == 105.0
    assert circuit.waits_s(RefusalCause.OVERLOAD, 20.0, 105.0) == (20.0, 2.0)


@pytest.mark.parametrize(
    ("cause", "longest_s"), [(RefusalCause.OVERLOAD, 2.0), (RefusalCause.RATE, 16.0)]
)
def test_a_stated_wait_hides_a_provider_that_is_back_for_no_more_than_that(
    cause: RefusalCause, longest_s: float
) -> None:
    circuit, now, waits = answered(20), 100.0, []
    refuse(circuit, cause, at=now, retry_after_s=55.0)
    for _ in range(6):
        now = max(now + 1.0, circuit.open_at(now=now))
        refuse(circuit, cause, at=now, retry_after_s=55.0)
        waits.append(circuit.open_at(now=now) - now)

    assert max(waits) == longest_s
    assert waits[-3:] == [longest_s] * 3  # no step is longer, however often it was refused


@pytest.mark.parametrize(
    ("cause", "wait_s"), [(RefusalCause.QUOTA, None), (RefusalCause.RATE, 3600.0)]
)
def test_what_has_served_is_believed_to_be_spent_step_by_step(
    cause: RefusalCause, wait_s: float | None
) -> None:
    circuit, now, waits, told = CircuitBreaker(), 100.0, [], []
    for number in range(8):
        circuit.succeeded(sent_at=float(number))
    for _ in range(6):
        refuse(circuit, cause, at=now, retry_after_s=wait_s)
        waits.append(circuit.open_at(now=now) - now)
        told.append(circuit.exhausted_until > now)
        now = circuit.open_at(now=now)

    assert waits == [2.0, 4.0, 8.0, 16.0, 32.0, 60.0 if wait_s is None else 64.0]
    # Of a spent account callers are told; a pause, of a minute here, lets them choose.
    assert told == [False] * 4 + [wait_s is None] * 2
    assert circuit.closed_to_some_until > 100.0
    assert circuit.half_open

    circuit.succeeded(sent_at=now)
    assert not circuit.half_open


def test_a_wait_of_nothing_is_no_wait() -> None:
    assert CircuitBreaker().waits_s(RefusalCause.RATE, 0.0, 1.0) == (None, None)
