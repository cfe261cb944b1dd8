"""Overload control sends a request back for a while; it keeps its place."""

import pytest

from penstock.core.events import Arrived, Defer, Reject, Woke
from tests.core.story import (
    DEAR_TOKENS,
    Bouncer,
    arrive,
    complete,
    guarded,
    is_at_rest,
    request,
    tell,
)


def test_a_dear_request_is_deferred_twice_then_shed() -> None:
    penstock = guarded(Bouncer(delay_s=0.5, returns=2))

    assert arrive(penstock, request(7, cost=DEAR_TOKENS)) == [("defer", 7, 0.5)]
    assert tell(penstock, (0.5, Woke())) == [("defer", 7, 1.0)]
    assert tell(penstock, (1.0, Woke())) == [("reject", 7, "shed")]
    assert is_at_rest(penstock)


def test_each_step_says_how_often_and_how_long_it_was_deferred() -> None:
    penstock = guarded(Bouncer(delay_s=0.5, returns=1))
    (first,) = penstock.handle(Arrived(request(7, cost=DEAR_TOKENS)), now=0.0)
    (last,) = penstock.handle(Woke(), now=0.75)

    assert isinstance(first, Defer)
    assert (first.reason, first.why.deferrals, first.why.waits) == ("overload", 0, {})
    assert isinstance(last, Reject)
    assert (last.retry_after_s, last.why.deferrals) == (7.0, 1)
    assert last.why.waits == {"deferral": 0.75}
    assert last.why.rung == "xlong"


def test_a_returning_request_has_kept_its_place_in_line() -> None:
    penstock = guarded(Bouncer(delay_s=0.5, until=0.5))
    arrive(penstock, request(1), request(2, cost=DEAR_TOKENS), request(3), request(4))
    tell(penstock, (0.5, Woke()))  # 2 comes back behind 3 and 4 in time, but not in line

    assert complete(penstock, 1, now=1.0) == [("dispatch", 2, "default")]
    assert complete(penstock, 2, now=2.0) == [("dispatch", 3, "default")]


def test_two_that_return_at_once_come_in_their_order() -> None:
    penstock = guarded(Bouncer(delay_s=0.5, until=0.5))
    arrive(penstock, request(1), request(3, cost=DEAR_TOKENS), request(2, cost=DEAR_TOKENS))

    assert complete(penstock, 1, now=0.25) == []  # the place is free, and both are held
    assert tell(penstock, (0.5, Woke())) == [("dispatch", 2, "default")]


def test_the_cheap_go_by_while_the_dear_are_held() -> None:
    penstock = guarded(Bouncer(delay_s=5.0))
    arrive(penstock, request(1, cost=DEAR_TOKENS))

    assert arrive(penstock, request(2, at=0.1)) == [("dispatch", 2, "default")]


def test_a_held_request_is_in_no_queue() -> None:
    penstock = guarded(Bouncer(delay_s=5.0))
    arrive(penstock, request(1, cost=DEAR_TOKENS))
    seen = penstock.snapshot()

    assert (seen.waiting, seen.deferred, seen.in_flight) == (0, 1, 0)
    assert penstock.next_wakeup() == 5.0


@pytest.mark.parametrize("returns", [1, 2, 5])
def test_the_number_of_returns_is_bounded(returns: int) -> None:
    penstock = guarded(Bouncer(delay_s=1.0, returns=returns))
    told = arrive(penstock, request(1, cost=DEAR_TOKENS))
    while (at := penstock.next_wakeup()) is not None:
        told += tell(penstock, (at, Woke()))

    assert [word[0] for word in told] == ["defer"] * returns + ["reject"]
