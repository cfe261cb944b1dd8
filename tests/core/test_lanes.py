"""Several upstreams and several models: who waits for whom, and who goes where."""

import math

from penstock.core.events import Failed, RefusalCause, Throttled, Woke
from penstock.core.lane import PASSES_LIMIT
from penstock.core.settings import Limits
from penstock.core.upstream.breaker import TURN_S
from tests.core.story import (
    arrive,
    complete,
    dispatch_times,
    refuse_first,
    request,
    scheduler,
    tell,
    upstream,
)


def test_one_models_trouble_does_not_hold_up_another_model() -> None:
    penstock = scheduler(upstream("a", models=("m",)), upstream("b", models=("n",)))
    arrive(penstock, request(1, model="m"), request(2, model="m"))

    assert arrive(penstock, request(3, model="n")) == [("dispatch", 3, "b")]


def test_lanes_that_share_an_upstream_share_its_window() -> None:
    penstock = scheduler(upstream("a"), upstream("b", models=("m",), base_s=0.5))
    told = arrive(penstock, request(1, model="x"), request(2, model="m"), request(3, model="m"))

    assert told == [("dispatch", 1, "a"), ("dispatch", 2, "b")]
    assert complete(penstock, 1, now=1.0) == [("dispatch", 3, "a")]


def test_a_request_goes_where_it_is_expected_to_finish_first() -> None:
    penstock = scheduler(upstream("slow", base_s=9.0), upstream("fast", base_s=1.0))

    assert arrive(penstock, request(1), request(2), request(3)) == [
        ("dispatch", 1, "fast"),
        ("dispatch", 2, "slow"),
    ]


def test_an_upstream_that_proves_slow_is_avoided() -> None:
    penstock = scheduler(upstream("a", base_s=1.0), upstream("b", base_s=1.1))
    for id_, now in ((1, 0.0), (2, 20.0)):
        assert arrive(penstock, request(id_, at=now)) == [("dispatch", id_, "a")]
        complete(penstock, id_, now=now + 1.0 + 4.0 * (id_ == 2))

    assert arrive(penstock, request(3, at=30.0)) == [("dispatch", 3, "b")]


def test_the_one_that_just_failed_it_comes_last() -> None:
    penstock = scheduler(upstream("a"), upstream("b", base_s=9.0))
    arrive(penstock, request(1))
    tell(penstock, (1.0, Failed(1, retryable=True)))

    assert tell(penstock, (2.0, Woke())) == [("dispatch", 1, "b")]


def test_when_all_have_failed_it_any_one_will_do() -> None:
    penstock = scheduler(upstream("a"))
    arrive(penstock, request(1))
    tell(penstock, (1.0, Failed(1, retryable=True)))

    assert tell(penstock, (2.0, Woke())) == [("dispatch", 1, "a")]


def test_a_pause_elsewhere_is_waited_for_if_it_ends_first() -> None:
    penstock = scheduler(
        upstream("a", window=4.0), upstream("b", window=4.0, window_tokens=150.0, base_s=9.0)
    )
    refuse_first(penstock)
    arrive(penstock, request(1))
    assert tell(penstock, (0.5, Throttled(1, RefusalCause.RATE, 2.0))) == [("dispatch", 1, "b")]

    assert arrive(penstock, request(2, at=1.0)) == []  # b has no tokens left, a opens at 2.5
    assert penstock.next_wakeup() == 2.5
    assert tell(penstock, (2.5, Woke())) == [("dispatch", 2, "a")]


def test_when_all_are_closed_the_first_to_open_sets_the_alarm() -> None:
    penstock = scheduler(upstream("a"), upstream("b", base_s=9.0))
    refuse_first(penstock)
    arrive(penstock, request(1), request(2))
    tell(
        penstock,
        (1.0, Throttled(1, RefusalCause.RATE, 1.8)),
        (1.0, Throttled(2, RefusalCause.RATE, 1.5)),
    )

    assert penstock.next_wakeup() == 2.5
    assert tell(penstock, (2.5 + TURN_S, Woke())) == [("dispatch", 1, "b")]
    assert penstock.next_wakeup() == 2.8


def test_a_conversation_stays_where_its_prompt_is_cached() -> None:
    penstock = scheduler(upstream("a", window=2.0), upstream("b", base_s=9.0), sticky=True)
    arrive(penstock, request(1), request(2), request(3, session="chat"))  # a is full
    for id_ in (1, 2, 3):
        complete(penstock, id_, now=10.0)

    assert arrive(penstock, request(4, at=11.0, session="chat")) == [("dispatch", 4, "b")]
    assert arrive(penstock, request(5, at=11.0, session="chat")) == [("dispatch", 5, "a")]


def test_without_stickiness_a_conversation_goes_where_it_is_fastest() -> None:
    penstock = scheduler(upstream("a", window=2.0), upstream("b", base_s=9.0))
    arrive(penstock, request(1), request(2), request(3, session="chat"))
    for id_ in (1, 2, 3):
        complete(penstock, id_, now=10.0)

    assert arrive(penstock, request(4, at=11.0, session="chat")) == [("dispatch", 4, "a")]


def test_a_head_that_does_not_fit_lets_others_by_but_not_for_ever() -> None:
    penstock = scheduler(upstream(window=8.0, window_tokens=100.0))
    arrive(penstock, request(0, cost=50), request(1, cost=100))  # 1 does not fit beside 0
    passed = []
    for id_ in range(2, 50):
        passed += arrive(penstock, request(id_, "interactive", at=id_, cost=30))
        if ("dispatch", id_, "default") in passed:
            complete(penstock, id_, now=id_ + 0.5)

    assert [word[1] for word in passed] == list(range(2, 2 + PASSES_LIMIT))
    assert complete(penstock, 0, now=60.0) == [("dispatch", 1, "default")]


def test_a_sick_upstream_elsewhere_lets_no_more_of_them_by() -> None:
    penstock = scheduler(
        upstream("sick", window=1.0), upstream("b", window=8.0, window_tokens=100.0, base_s=9.0)
    )
    refuse_first(penstock)
    arrive(penstock, request(0, cost=50))
    tell(penstock, (0.1, Throttled(0, RefusalCause.DENIED, 59.0)))  # 0 flies at b now
    arrive(penstock, request(1, at=0.1, cost=100))
    passed = []
    for id_ in range(2, 50):
        passed += arrive(penstock, request(id_, "interactive", at=id_, cost=30))
        if ("dispatch", id_, "b") in passed:
            complete(penstock, id_, now=id_ + 0.5)

    assert [word[1] for word in passed] == list(range(2, 2 + PASSES_LIMIT))


def test_a_request_above_the_token_window_goes_alone() -> None:
    penstock = scheduler(upstream(window=8.0, window_tokens=100.0))

    assert arrive(penstock, request(1, cost=5000)) == [("dispatch", 1, "default")]
    assert arrive(penstock, request(2, cost=10)) == []
    assert complete(penstock, 1, now=1.0) == [("dispatch", 2, "default")]


def test_a_limit_a_minute_is_waited_for() -> None:
    penstock = scheduler(upstream(window=9.0, limits=Limits(requests_per_min=2.0)))
    sent_at = dispatch_times(penstock, *(request(id_) for id_ in (1, 2, 3)))

    assert sent_at[2] - sent_at[0] >= 60.0


def test_more_models_than_it_remembers_are_served_all_the_same() -> None:
    penstock = scheduler(upstream("a", window=math.inf), upstream("b", models=("m",)))
    told = arrive(penstock, *(request(id_, model=f"m{id_}") for id_ in range(4200)))

    assert len(told) == 4200
    assert len(penstock.snapshot().upstreams["a"].service) <= 4096
    assert complete(penstock, 0, now=1.0) == []  # its model was forgotten meanwhile
