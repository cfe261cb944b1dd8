"""No new work: what waits is told to come back, what flies may finish."""

from penstock.core.events import (
    Arrived,
    Completed,
    Draining,
    Failed,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from tests.core.story import (
    DEAR_TOKENS,
    Bouncer,
    arrive,
    guarded,
    is_at_rest,
    refuse_first,
    request,
    scheduler,
    tell,
)


def test_draining_refuses_everything_that_does_not_fly() -> None:
    penstock = guarded(Bouncer(delay_s=5.0))
    arrive(penstock, request(1), request(2), request(3, cost=DEAR_TOKENS), request(4, expires_at=9))

    assert tell(penstock, (1.0, Draining())) == [
        ("reject", 2, "draining"),
        ("reject", 3, "draining"),
        ("reject", 4, "draining"),
    ]
    assert penstock.next_wakeup() is None
    assert penstock.snapshot().draining
    assert tell(penstock, (2.0, Completed(1, 100))) == []
    assert is_at_rest(penstock)


def test_later_arrivals_are_told_when_to_come_back() -> None:
    penstock = scheduler()
    tell(penstock, (0.0, Draining()))

    (refusal,) = penstock.handle(Arrived(request(1, at=1.0)), now=1.0)

    assert isinstance(refusal, Reject)
    assert refusal.reason == "draining"
    assert refusal.retry_after_s is not None
    assert refusal.retry_after_s > 0


def test_a_second_draining_changes_nothing() -> None:
    penstock = scheduler()
    arrive(penstock, request(1), request(2))
    tell(penstock, (1.0, Draining()))

    assert tell(penstock, (2.0, Draining())) == []


def test_what_breaks_while_draining_is_not_tried_again() -> None:
    penstock = scheduler(window=2)
    arrive(penstock, request(1), request(2))
    tell(penstock, (1.0, Draining()))

    assert tell(penstock, (2.0, Failed(1, retryable=True))) == [("reject", 1, "upstream")]
    assert tell(penstock, (2.0, Throttled(2, RefusalCause.RATE, 1.0))) == [
        ("reject", 2, "upstream")
    ]
    assert is_at_rest(penstock)


def test_a_pause_that_nobody_waits_for_any_more_wakes_nobody() -> None:
    penstock = scheduler(window=1)
    refuse_first(penstock)
    arrive(penstock, request(1), request(2))
    tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 1.5)))
    assert penstock.next_wakeup() == 2.5

    tell(penstock, (2.0, Draining()))

    assert penstock.next_wakeup() is None
    assert tell(penstock, (31.0, Woke())) == []
