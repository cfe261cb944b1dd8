"""A request arrives: it goes, waits or is refused."""

import math

import pytest

from penstock.core.events import Arrived, Reject, Woke
from penstock.core.model import TrafficClass
from penstock.errors import ProtocolError
from tests.core.story import (
    BATCH,
    INTERACTIVE,
    Bouncer,
    arrive,
    complete,
    guarded,
    request,
    scheduler,
    tell,
    told,
    upstream,
)


def test_the_first_goes_at_once_and_the_second_waits_for_its_place() -> None:
    penstock = scheduler(window=1)

    assert arrive(penstock, request(1)) == [("dispatch", 1, "default")]
    assert arrive(penstock, request(2, at=0.5)) == []
    assert penstock.next_wakeup() is None  # only an event can help
    assert complete(penstock, 1, now=2.0) == [("dispatch", 2, "default")]
    assert complete(penstock, 2, now=3.0) == []


def test_at_one_instant_the_lower_sequence_number_goes_first() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(3), request(2))

    assert complete(penstock, 1, now=1.0) == [("dispatch", 2, "default")]
    assert complete(penstock, 2, now=2.0) == [("dispatch", 3, "default")]


def test_a_request_that_came_too_late_is_refused_at_once() -> None:
    penstock = scheduler()

    assert arrive(penstock, request(1, at=5.0, expires_at=5.0)) == [("reject", 1, "expired")]


def test_the_queue_holds_no_more_requests_than_its_limit() -> None:
    penstock = scheduler(window=1, queue_limit=2)
    arrive(penstock, request(1), request(2), request(3))

    assert arrive(penstock, request(4)) == [("reject", 4, "queue_full")]
    complete(penstock, 1, now=1.0)
    assert arrive(penstock, request(5, at=1.0)) == []


def test_each_class_has_its_own_limit() -> None:
    narrow = TrafficClass("interactive", queue_limit=1)
    penstock = scheduler(window=1, classes=(narrow, BATCH))
    arrive(penstock, request(1), request(2, "interactive"))

    assert arrive(penstock, request(3, "interactive")) == [("reject", 3, "queue_full")]
    assert arrive(penstock, request(4)) == []


def test_a_limit_of_waiting_tokens_counts_what_is_predicted() -> None:
    narrow = TrafficClass("batch", queue_limit_tokens=300.0)
    penstock = scheduler(window=1, classes=(INTERACTIVE, narrow))
    arrive(penstock, request(1, cost=1000), request(2, cost=200))

    assert arrive(penstock, request(3, cost=101)) == [("reject", 3, "queue_full")]
    assert arrive(penstock, request(4, cost=100)) == []


def test_a_request_above_the_whole_token_limit_enters_an_empty_queue() -> None:
    narrow = TrafficClass("batch", queue_limit_tokens=300.0)
    penstock = scheduler(window=1, classes=(INTERACTIVE, narrow))

    assert arrive(penstock, request(1, cost=5000)) == [("dispatch", 1, "default")]
    assert arrive(penstock, request(2, cost=5000)) == []
    assert arrive(penstock, request(3, cost=1)) == [("reject", 3, "queue_full")]


def test_the_deferred_count_against_the_limit_for_they_wait_too() -> None:
    penstock = guarded(Bouncer(delay_s=10.0), window=1, queue_limit=1)
    arrive(penstock, request(1))

    assert arrive(penstock, request(2, cost=2000)) == [("defer", 2, 10.0)]
    assert arrive(penstock, request(3)) == [("reject", 3, "queue_full")]


def test_a_full_queue_says_when_it_will_have_drained() -> None:
    penstock = scheduler(upstream(window=1, base_s=4.0), queue_limit=3)
    arrive(penstock, *(request(id_) for id_ in range(4)))

    (refusal,) = penstock.handle(Arrived(request(9)), now=0.0)

    assert isinstance(refusal, Reject)
    assert refusal.retry_after_s == 12.0  # three waiting, four seconds each


def test_the_stated_wait_is_between_a_second_and_a_minute() -> None:
    quick = scheduler(upstream(window=1, base_s=0.01), queue_limit=1)
    slow = scheduler(upstream(window=1, base_s=500.0), queue_limit=1)
    for penstock, retry_after_s in ((quick, 1.0), (slow, 60.0)):
        arrive(penstock, request(1), request(2))
        (refusal,) = penstock.handle(Arrived(request(3)), now=0.0)
        assert isinstance(refusal, Reject)
        assert refusal.retry_after_s == retry_after_s


def test_a_model_that_nobody_serves_is_refused_without_hope() -> None:
    penstock = scheduler(upstream("a", models=("m",)))

    (refusal,) = penstock.handle(Arrived(request(1, model="x", deadline=9.0)), now=2.0)

    assert isinstance(refusal, Reject)
    assert (refusal.reason, refusal.retry_after_s) == ("no_upstream", None)
    assert refusal.why.waited_s == 2.0


def test_an_id_may_not_arrive_twice_while_it_lives() -> None:
    penstock = scheduler()
    arrive(penstock, request(1))

    with pytest.raises(ProtocolError, match="request 1 arrived twice"):
        penstock.handle(Arrived(request(1)), now=0.0)

    complete(penstock, 1, now=1.0)
    assert arrive(penstock, request(1, at=1.0)) == [("dispatch", 1, "default")]


def test_an_unknown_class_is_the_callers_mistake_and_changes_nothing() -> None:
    penstock = scheduler()

    with pytest.raises(ProtocolError, match=r"'gold' is not configured: known are \['batch', "):
        penstock.handle(Arrived(request(1, "gold")), now=0.0)

    assert penstock.snapshot().waiting == 0
    assert arrive(penstock, request(1)) == [("dispatch", 1, "default")]


def test_time_must_not_go_backwards() -> None:
    penstock = scheduler()
    tell(penstock, (5.0, Woke()))

    with pytest.raises(ProtocolError, match=r"now=4.9 is before the last event \(5.0\)"):
        penstock.handle(Woke(), now=4.9)


@pytest.mark.parametrize("now", [math.inf, math.nan, -math.inf])
def test_a_time_that_is_none_is_refused(now: float) -> None:
    penstock = scheduler()
    tell(penstock, (0.0, Woke()))

    with pytest.raises(ProtocolError, match="time must not go backwards"):
        penstock.handle(Woke(), now=now)


def test_a_bad_event_does_not_swallow_what_the_timers_decided_before_it() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2, expires_at=5.0))

    with pytest.raises(ProtocolError):
        penstock.handle(Arrived(request(3, "gold")), now=6.0)

    assert penstock.next_wakeup() == 6.0
    assert tell(penstock, (6.0, Woke())) == [("reject", 2, "expired")]
    assert penstock.next_wakeup() is None


def test_without_a_window_everything_goes_at_once() -> None:
    penstock = scheduler(window=1e9)

    actions = [a for id_ in range(50) for a in penstock.handle(Arrived(request(id_)), now=0.0)]

    assert told(actions) == [("dispatch", id_, "default") for id_ in range(50)]
    assert penstock.snapshot().upstreams["default"].open_at < math.inf
