"""Severity thresholds by rung: admit, defer, shed."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.policy import Admit, DeferFor, Shed
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket, ticket_of
from penstock.policies.overload.ladder import Ladder, retry_after_s
from tests.core.story import overloaded, request

LADDER = Ladder({"long": 0.5}, {"long": 0.8}, 2, 0.1, 0.5, 10.0)


def waiting(*, slack_s: float = 20.0, deferrals: int = 0, cost: float = 1000) -> Ticket:
    ticket = ticket_of(request(1, cost=cost, deadline=slack_s), 0.0, 0.0)
    ticket.deferrals = deferrals
    return ticket


@pytest.mark.parametrize(
    ("severity", "deferrals", "verdict"),
    [
        (0.49, 0, Admit()),
        (0.5, 0, DeferFor(2.0, "overload")),
        (0.5, 1, DeferFor(2.0, "overload")),
        (0.5, 2, Admit()),  # it has waited enough
        (0.8, 0, DeferFor(2.0, "overload")),  # a burst may end in time
        (0.8, 2, Shed("shed", 1.0)),  # this one did not
        (0.79, 2, Admit()),
    ],
)
def test_a_rung_is_deferred_first_and_shed_only_if_the_overload_lasts(
    severity: float, deferrals: int, verdict: object
) -> None:
    signals = overloaded(severity)

    assert LADDER.judge(waiting(deferrals=deferrals), signals, now=0.0) == verdict


def test_a_rung_that_stands_on_no_list_is_always_admitted() -> None:
    assert LADDER.judge(waiting(cost=10), overloaded(1.0), now=0.0) == Admit()


@pytest.mark.parametrize(
    ("slack_s", "delay_s"), [(5.1, 0.51), (2.0, 0.5), (100.0, 10.0), (900.0, 10.0), (math.inf, 10)]
)
def test_a_deferral_is_a_share_of_the_slack_within_bounds(slack_s: float, delay_s: float) -> None:
    verdict = LADDER.judge(waiting(slack_s=slack_s), overloaded(0.6), now=0.0)

    assert isinstance(verdict, DeferFor)
    assert verdict.delay_s == pytest.approx(delay_s)


def test_who_cannot_bear_a_deferral_is_judged_as_if_it_had_had_all_of_them() -> None:
    urgent = waiting(slack_s=0.4)

    assert LADDER.judge(urgent, overloaded(0.6), now=0.0) == Admit()
    assert LADDER.judge(urgent, overloaded(0.9), now=0.0) == Shed("shed", 1.0)


def test_the_stated_wait_is_the_work_that_waits_spread_over_the_window() -> None:
    assert retry_after_s(Signals(window=4.0, waiting_work_s=80.0)) == 20.0
    assert retry_after_s(Signals(window=4.0, waiting_work_s=9999.0)) == 60.0
    assert retry_after_s(Signals(window=math.inf, waiting_work_s=80.0)) == 1.0


@given(st.floats(0, 1), st.floats(-10, 1000), st.integers(0, 5))
def test_a_deferral_always_ends_before_the_slack_does(
    severity: float, slack_s: float, deferrals: int
) -> None:
    verdict = LADDER.judge(
        waiting(slack_s=slack_s, deferrals=deferrals), overloaded(severity), now=0.0
    )

    if isinstance(verdict, DeferFor):
        assert 0.5 <= verdict.delay_s < slack_s
        assert deferrals < 2
