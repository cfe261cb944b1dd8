"""The caller goes away: in every state, and after the end too."""

from penstock.core.events import Cancelled, Failed, RefusalCause, Throttled, Woke
from penstock.core.upstream.breaker import PROBE_GAP_S
from tests.core.story import (
    DEAR_TOKENS,
    Bouncer,
    arrive,
    complete,
    guarded,
    is_at_rest,
    refuse_first,
    request,
    scheduler,
    tell,
    upstream,
)


def test_while_it_waits_it_leaves_the_queue() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2, expires_at=9.0), request(3))

    assert tell(penstock, (0.5, Cancelled(2))) == []
    assert complete(penstock, 1, now=1.0) == [("dispatch", 3, "default")]
    assert complete(penstock, 3, now=2.0) == []
    assert is_at_rest(penstock)


def test_while_it_flies_it_frees_its_place() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2))

    assert tell(penstock, (0.5, Cancelled(1))) == [("dispatch", 2, "default")]


def test_while_it_is_deferred_it_does_not_come_back() -> None:
    penstock = guarded(Bouncer(delay_s=1.0))
    arrive(penstock, request(1, cost=DEAR_TOKENS, expires_at=9.0))

    assert tell(penstock, (0.5, Cancelled(1))) == []
    assert penstock.next_wakeup() is None
    assert tell(penstock, (1.0, Woke())) == []
    assert is_at_rest(penstock)


def test_while_it_backs_off_after_a_failure() -> None:
    penstock = scheduler()
    arrive(penstock, request(1))
    tell(penstock, (1.0, Failed(1, retryable=True)))

    assert tell(penstock, (1.1, Cancelled(1))) == []
    assert is_at_rest(penstock)


def test_while_it_waits_for_a_paused_upstream() -> None:
    penstock = scheduler()
    arrive(penstock, request(1))
    tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 5.0)))

    assert tell(penstock, (1.1, Cancelled(1))) == []
    assert is_at_rest(penstock)


def test_after_its_end_nothing_happens() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1))
    complete(penstock, 1, now=1.0)

    assert tell(penstock, (2.0, Cancelled(1)), (2.0, Cancelled(1))) == []


def test_of_a_request_that_never_was_nothing_happens() -> None:
    assert tell(scheduler(), (0.0, Cancelled(99))) == []


def test_a_head_that_did_not_fit_makes_way_for_those_behind_it() -> None:
    penstock = scheduler(upstream(window=8, window_tokens=250.0))
    arrive(penstock, request(1, cost=200), request(2, cost=100), request(3, cost=50))

    assert tell(penstock, (0.5, Cancelled(2))) == [("dispatch", 3, "default")]


def test_a_probe_whose_caller_left_lets_the_next_one_try() -> None:
    penstock = scheduler(window=4)
    refuse_first(penstock)
    arrive(penstock, request(1), request(2), request(3))
    tell(penstock, (1.0, Throttled(1, RefusalCause.OVERLOAD, 2.0)))
    tell(penstock, (1.5, Cancelled(2)), (1.5, Cancelled(3)))
    arrive(penstock, request(4, at=2.0))

    assert tell(penstock, (3.0, Woke())) == [("dispatch", 4, "default")]  # one at a time
    assert tell(penstock, (3.5, Cancelled(4)), (3.6, Woke())) == [("dispatch", 1, "default")]


def test_after_a_probe_whose_caller_left_whoever_came_last_is_the_next() -> None:
    """The next oldest would leave as soon, and so on: nobody would ever be served."""
    penstock = scheduler(window=4)
    refuse_first(penstock)
    arrive(penstock, request(1))
    tell(penstock, (1.0, Throttled(1, RefusalCause.OVERLOAD, 2.0)))
    arrive(penstock, *(request(id_, at=float(id_) - 0.5) for id_ in (2, 3)))
    probe = tell(penstock, (3.0, Woke()))
    arrive(penstock, *(request(id_, at=3.1) for id_ in (4, 5)))

    assert probe == [("dispatch", 2, "default")]
    assert tell(penstock, (3.5, Cancelled(2))) == [("dispatch", 5, "default")]
    assert complete(penstock, 5, now=4.0)[0] == ("dispatch", 3, "default")  # in order again


def test_once_a_later_probe_has_passed_the_door_others_go_in_order_before_any_reply() -> None:
    penstock = scheduler(window=8)
    refuse_first(penstock)
    arrive(penstock, request(1))
    tell(penstock, (0.02, Throttled(1, RefusalCause.OVERLOAD, 2.0)))
    arrive(penstock, *(request(id_, at=1.0) for id_ in range(2, 9)))
    assert tell(penstock, (2.02, Woke()), (3.0, Cancelled(2))) == [
        ("dispatch", 2, "default"),
        ("dispatch", 8, "default"),
    ]

    after_it = tell(penstock, (3.0 + PROBE_GAP_S, Woke()))
    assert [word[1] for word in after_it] == [7, 1, 3, 4, 5, 6]
