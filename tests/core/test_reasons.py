"""Every decision says what it stood on, and a recorded one does not change afterwards."""

import pytest

from penstock.core.events import (
    Abandoned,
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.settings import Limits, PolicySpec
from tests.core.story import (
    DEAR_TOKENS,
    Bouncer,
    guarded,
    refuse_first,
    request,
    scheduler,
    tell,
    upstream,
)


def dispatched(penstock: object, event: object, now: float) -> Dispatch:
    (action,) = penstock.handle(event, now=now)  # type: ignore[attr-defined]
    assert isinstance(action, Dispatch)
    return action


def test_a_dispatch_says_what_flew_what_waited_and_for_how_long() -> None:
    penstock = scheduler(upstream(window=2.0, base_s=3.0))
    for id_ in (1, 2, 3, 4):
        penstock.handle(Arrived(request(id_, deadline=20.0)), now=0.0)

    why = dispatched(penstock, Completed(1, 100), 3.0).why

    assert (why.window, why.in_flight, why.backlog) == (2.0, 1, 1)
    assert (why.waited_s, why.deferrals, why.attempts) == (3.0, 0, 0)
    assert (why.service_p50_s, why.slack_s) == (3.0, 14.0)
    assert why.rung == "medium"


def test_the_slack_is_reckoned_with_the_p90() -> None:
    penstock = scheduler(upstream(base_s=1.0, s_per_token=0.01))

    why = dispatched(penstock, Arrived(request(1, cost=100, p90=300, deadline=10.0)), 0.0).why

    assert (why.service_p50_s, why.slack_s) == (2.0, 6.0)


def test_who_stands_behind_the_head_waits_for_what_the_head_waits_for() -> None:
    penstock = scheduler(window=1)
    for id_ in (1, 2, 3):
        penstock.handle(Arrived(request(id_)), now=0.0)

    second = dispatched(penstock, Completed(1, 100), 2.0)
    third = dispatched(penstock, Completed(2, 100), 5.0)

    assert (second.why.waits, second.why.sent_meanwhile) == ({"window": 2.0}, 0)
    assert (third.why.waits, third.why.sent_meanwhile) == ({"window": 5.0}, 1)


def test_a_pause_is_what_all_wait_for_wherever_they_stand() -> None:
    penstock = scheduler(window=1)
    refuse_first(penstock)
    for id_ in (1, 2, 3):
        penstock.handle(Arrived(request(id_)), now=0.0)
    penstock.handle(Throttled(1, RefusalCause.RATE, 1.5), now=1.0)

    second = dispatched(penstock, Woke(), 2.5)
    first = dispatched(penstock, Completed(2, 100), 5.0)
    third = dispatched(penstock, Completed(1, 100), 7.0)

    assert [each.request.id for each in (second, first, third)] == [2, 1, 3]
    assert second.why.waits == {"window": 1.0, "upstream": 1.5}
    assert third.why.waits == {"window": 5.5, "upstream": 1.5}
    assert first.why.waits == {"upstream": 1.5, "backoff": 2.5}


def test_behind_a_limit_a_minute_all_wait_for_the_limit() -> None:
    penstock = scheduler(upstream(window=9.0, limits=Limits(requests_per_min=1.0)))
    for id_ in (1, 2, 3):
        penstock.handle(Arrived(request(id_)), now=0.0)
    dispatched(penstock, Woke(), 90.0)

    assert dispatched(penstock, Woke(), 180.0).why.waits == {"limits": 180.0}


def test_a_caller_that_leaves_the_queue_leaves_word_of_what_it_waited_for() -> None:
    penstock = scheduler(window=1)
    for id_ in (1, 2, 3):
        penstock.handle(Arrived(request(id_)), now=0.0)

    (left,) = penstock.handle(Cancelled(3), now=4.0)

    assert isinstance(left, Abandoned)
    assert (left.request.id, left.why.waited_s, left.why.waits) == (3, 4.0, {"window": 4.0})


def test_asking_why_somebody_waits_changes_no_decision() -> None:
    asked, left_alone = scheduler(window=1), scheduler(window=1)
    for penstock in (asked, left_alone):
        penstock.handle(Arrived(request(1)), now=0.1)
        penstock.handle(Arrived(request(2, at=0.1)), now=0.1)
    for tenths in range(2, 70):
        asked.waiting.place(2, now=tenths / 10)

    assert asked.handle(Completed(1, 100), now=7.3) == left_alone.handle(Completed(1, 100), now=7.3)


def test_a_wait_for_a_limit_a_minute_is_named_so() -> None:
    penstock = scheduler(upstream(window=9.0, limits=Limits(requests_per_min=1.0)))
    penstock.handle(Arrived(request(1)), now=0.0)
    penstock.handle(Arrived(request(2, at=10.0)), now=10.0)

    why = dispatched(penstock, Woke(), 90.0).why

    assert why.waits == {"limits": 80.0}


def test_a_wait_for_a_paused_upstream_is_named_so() -> None:
    penstock = scheduler()
    refuse_first(penstock)
    penstock.handle(Arrived(request(1)), now=0.0)
    penstock.handle(Throttled(1, RefusalCause.RATE, 4.0), now=1.0)

    why = dispatched(penstock, Woke(), 5.0).why

    assert why.waits == {"upstream": 4.0}
    assert (why.attempts, why.waited_s) == (1, 5.0)


def test_a_wait_for_the_token_window_is_named_so() -> None:
    penstock = scheduler(upstream(window=9.0, window_tokens=150.0))
    penstock.handle(Arrived(request(1)), now=0.0)
    penstock.handle(Arrived(request(2)), now=0.0)

    assert dispatched(penstock, Completed(1, 100), 3.0).why.waits == {"window": 3.0}


def test_a_wait_for_another_class_is_named_so() -> None:
    quarter = PolicySpec("quota_tiered", {"quotas": {"batch": 0.25, "interactive": 0.75}})
    penstock = scheduler(window=4, allocation=quarter)
    penstock.handle(Arrived(request(1)), now=0.0)
    penstock.handle(Arrived(request(2)), now=0.0)

    assert dispatched(penstock, Completed(1, 100), 3.0).why.waits == {"class": 3.0}


def test_a_deferral_is_named_so() -> None:
    penstock = guarded(Bouncer(delay_s=2.0, until=2.0))
    penstock.handle(Arrived(request(1, cost=DEAR_TOKENS)), now=0.0)

    why = dispatched(penstock, Woke(), 2.0).why

    assert (why.waits, why.deferrals) == ({"deferral": 2.0}, 1)


def test_a_decision_on_record_stays_as_it_was() -> None:
    penstock = scheduler(window=1)
    penstock.handle(Arrived(request(1)), now=0.0)
    penstock.handle(Arrived(request(2)), now=0.0)
    first = dispatched(penstock, Completed(1, 100), 2.0)
    on_record = repr(first)

    tell(penstock, (3.0, Throttled(2, RefusalCause.RATE, 4.0)))
    again = dispatched(penstock, Woke(), 7.0)

    assert repr(first) == on_record
    assert again.why.waits == {"window": 2.0, "upstream": 4.0}


def test_the_deficit_shown_is_what_is_left_after_the_decision() -> None:
    drr = PolicySpec("drr", {"quantum_tokens": 300.0})
    penstock = scheduler(window=1, allocation=drr)

    why = dispatched(penstock, Arrived(request(1, cost=100)), 0.0).why

    assert why.deficit_tokens == 200.0  # batch has the weight 1: one round, less its cost


@pytest.mark.parametrize("places", [1, 2])
def test_who_is_refused_at_a_pause_is_not_told_of_flights_that_are_over(places: int) -> None:
    penstock = scheduler(*(upstream(f"u{n}", window=1.0) for n in range(places)))
    for id_ in range(places):
        dispatched(penstock, Arrived(request(id_)), 0.0)
    for id_ in range(places):
        penstock.handle(Throttled(id_, RefusalCause.QUOTA, 600.0), now=1.0)

    (refused,) = penstock.handle(Arrived(request(9)), now=2.0)

    assert isinstance(refused, Reject)
    assert (refused.reason, refused.why.in_flight) == ("quota", 0)
