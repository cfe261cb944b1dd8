"""A request lives so long and no longer, wherever it waits."""

from penstock.core.events import Arrived, Cancelled, Failed, RefusalCause, Throttled, Woke
from penstock.core.model import TrafficClass
from tests.core.story import (
    BATCH,
    Bouncer,
    arrive,
    complete,
    guarded,
    is_at_rest,
    request,
    scheduler,
    tell,
)


def test_what_waits_too_long_is_refused_when_its_time_is_over() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2, expires_at=5.0), request(3, expires_at=4.0))

    assert penstock.next_wakeup() == 4.0
    assert tell(penstock, (4.0, Woke())) == [("reject", 3, "expired")]
    assert penstock.next_wakeup() == 5.0
    assert tell(penstock, (7.5, Woke())) == [("reject", 2, "expired")]
    assert complete(penstock, 1, now=8.0) == []
    assert is_at_rest(penstock)


def test_a_class_may_refuse_what_can_no_longer_be_on_time() -> None:
    strict = TrafficClass("strict", hopeless="refuse")
    penstock = scheduler(window=1, classes=(strict, BATCH))  # every reply takes 1 s
    arrive(
        penstock,
        request(1, "strict"),
        request(2, "strict", deadline=5.0),
        request(3, "batch", deadline=3.0),
    )

    assert arrive(penstock, request(4, "strict", deadline=0.9)) == [("reject", 4, "hopeless")]
    assert penstock.next_wakeup() == 4.0  # to be on time at 5 s it must go at 4 s
    assert tell(penstock, (4.0, Woke())) == [("reject", 2, "hopeless")]
    assert complete(penstock, 1, now=5.0) == [("dispatch", 3, "default")]  # late, and served
    assert complete(penstock, 3, now=6.0) == []
    assert is_at_rest(penstock)


def test_what_flies_does_not_expire() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1, expires_at=5.0))

    assert penstock.next_wakeup() is None
    assert tell(penstock, (9.0, Woke())) == []
    assert complete(penstock, 1, now=10.0) == []


def test_any_later_event_hears_the_timers_that_were_missed() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2, expires_at=5.0))

    assert arrive(penstock, request(3, at=6.0)) == [("reject", 2, "expired")]


def test_at_one_instant_a_completion_comes_before_the_timer() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2, expires_at=5.0))

    assert complete(penstock, 1, now=5.0) == [("dispatch", 2, "default")]
    assert tell(penstock, (5.0, Woke())) == []


def test_at_one_instant_an_arrival_comes_before_the_timer() -> None:
    penstock = scheduler(window=1, queue_limit=1)
    arrive(penstock, request(1), request(2, expires_at=5.0))

    assert tell(penstock, (5.0, Arrived(request(3, at=5.0)))) == [("reject", 3, "queue_full")]
    assert tell(penstock, (5.0, Woke())) == [("reject", 2, "expired")]


def test_a_deferred_request_expires_too() -> None:
    penstock = guarded(Bouncer(delay_s=10.0), window=1)
    arrive(penstock, request(1, cost=2000, expires_at=4.0))

    assert tell(penstock, (4.0, Woke())) == [("reject", 1, "expired")]
    assert is_at_rest(penstock)


def test_expiry_comes_before_a_return_at_the_same_time() -> None:
    penstock = guarded(Bouncer(delay_s=4.0), window=1)
    arrive(penstock, request(1, cost=2000, expires_at=4.0))

    assert tell(penstock, (4.0, Woke())) == [("reject", 1, "expired")]


def test_a_retry_lives_no_longer_than_its_request() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1, expires_at=10.0), request(2))
    tell(penstock, (1.0, Failed(1, retryable=True)))  # 2 takes the place

    assert tell(penstock, (2.0, Woke())) == []
    assert penstock.next_wakeup() == 10.0
    assert tell(penstock, (10.0, Woke())) == [("reject", 1, "expired")]


def test_a_refused_attempt_lives_no_longer_than_its_request() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1, expires_at=10.0))
    tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 3.0)))

    # It is sent again as soon as the upstream opens, and only then has no end.
    assert tell(penstock, (4.0, Woke())) == [("dispatch", 1, "default")]
    assert penstock.next_wakeup() is None


def test_who_expires_and_then_hangs_up_is_refused_once() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2, expires_at=5.0))

    assert tell(penstock, (5.0, Woke()), (5.0, Cancelled(2))) == [("reject", 2, "expired")]
