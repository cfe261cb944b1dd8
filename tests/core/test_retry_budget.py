"""Retries stay a share of what clients ask for."""

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.backlog import ALWAYS, WINDOW_S, RetryBudget


def test_a_lone_request_may_be_tried_again_a_few_times() -> None:
    budget = RetryBudget(0.1)
    budget.arrived(now=0.0)
    for _ in range(ALWAYS):
        assert budget.next_at(now=1.0) == 1.0
        budget.spend(now=1.0)

    assert budget.next_at(now=2.0) == 1.0 + WINDOW_S


def test_a_tenth_of_the_requests_may_be_repeated() -> None:
    budget = RetryBudget(0.1)
    for id_ in range(100):
        budget.arrived(now=id_ / 100.0)
    for _ in range(10):
        assert budget.next_at(now=1.0) == 1.0
        budget.spend(now=1.0)

    assert budget.next_at(now=1.0) == 1.0 + WINDOW_S


def test_with_no_share_only_the_few_are_left() -> None:
    budget = RetryBudget(0.0)
    for id_ in range(1000):
        budget.arrived(now=id_ / 1000.0)
    for _ in range(ALWAYS):
        budget.spend(now=1.0)

    assert budget.next_at(now=1.0) > 1.0


def test_each_upstream_adds_its_few() -> None:
    budget = RetryBudget(0.0, upstreams=2)
    for _ in range(2 * ALWAYS):
        assert budget.next_at(now=1.0) == 1.0
        budget.spend(now=1.0)

    assert budget.next_at(now=1.0) == 1.0 + WINDOW_S


def test_half_of_the_requests_may_go_elsewhere_whatever_was_repeated() -> None:
    budget = RetryBudget(0.0)
    for id_ in range(100):
        budget.arrived(now=id_ / 100.0)
    for _ in range(50):
        assert budget.may_go_elsewhere(now=1.0)
        budget.go_elsewhere(now=1.0)

    assert not budget.may_go_elsewhere(now=1.0)
    assert budget.may_go_elsewhere(now=61.0)


@given(
    share=st.floats(0.0, 1.0),
    gaps=st.lists(st.tuples(st.booleans(), st.floats(0.0, 5.0)), max_size=200),
)
def test_no_minute_sees_more_retries_than_its_share(
    share: float, gaps: list[tuple[bool, float]]
) -> None:
    budget, now = RetryBudget(share), 0.0
    arrivals: list[float] = []
    retries: list[float] = []
    for arrives, gap_s in gaps:
        now += gap_s
        if arrives:
            budget.arrived(now=now)
            arrivals.append(now)
        elif budget.next_at(now=now) <= now:
            budget.spend(now=now)
            retries.append(now)
            recent = sum(at > now - WINDOW_S for at in arrivals)
            spent = sum(at > now - WINDOW_S for at in retries)
            assert spent <= max(ALWAYS, share * recent)
