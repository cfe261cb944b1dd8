"""What a provider charges: usage or a reservation, in a second, a minute or a day."""

import math

from penstock.core.events import Arrived, Completed, Dispatch, Woke
from penstock.core.model import Request
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Limits
from tests.core.story import arrive, dispatch_times, request, scheduler, upstream


def with_limits(limits: Limits) -> Scheduler:
    return scheduler(upstream(window=math.inf, limits=limits))


def capped(id_: int, cap: int | None, *, prompt_tokens: int = 100, at: float = 0.0) -> Request:
    one = request(id_, at=at, cost=10.0, p90=300.0, prompt_tokens=prompt_tokens)
    one.cap_tokens = cap
    return one


def test_a_reservation_charges_prompt_and_cap_and_gives_nothing_back() -> None:
    penstock = with_limits(Limits(tokens_per_min=2000.0, charged="reservation"))
    arrive(penstock, capped(1, 900))
    penstock.handle(Completed(1, 10, 100), now=1.0)

    assert arrive(penstock, capped(2, 900, at=2.0)) == [("dispatch", 2, "default")]
    assert arrive(penstock, capped(3, 900, at=3.0)) == []
    actions = penstock.handle(Completed(2, 10, 100), now=4.0)
    assert not any(isinstance(action, Dispatch) for action in actions)
    assert arrive(penstock, capped(4, 900, at=60.0)) == []
    assert any(isinstance(a, Dispatch) for a in penstock.handle(Woke(), now=61.0))


def test_usage_gives_back_what_a_reply_did_not_have() -> None:
    penstock = with_limits(Limits(tokens_per_min=2000.0))
    for id_ in range(5):
        assert arrive(penstock, capped(id_, 900, at=float(id_)))
        penstock.handle(Completed(id_, 10, 100), now=id_ + 0.5)


def test_without_a_cap_the_p90_is_reserved() -> None:
    penstock = with_limits(Limits(output_tokens_per_min=700.0, charged="reservation"))

    assert len(arrive(penstock, *(capped(id_, None) for id_ in range(4)))) == 2


def test_a_reservation_above_the_whole_limit_is_refused_in_words() -> None:
    penstock = with_limits(Limits(tokens_per_min=2000.0, charged="reservation"))

    assert arrive(penstock, capped(1, 1901)) == [("reject", 1, "too_large")]
    assert arrive(penstock, capped(2, 1900)) == [("dispatch", 2, "default")]


def test_a_request_that_fits_another_upstreams_reservation_is_not_too_large() -> None:
    small = Limits(tokens_per_min=500.0, charged="reservation")
    penstock = scheduler(upstream("small", limits=small), upstream("large", base_s=9.0))

    assert arrive(penstock, capped(1, 1900)) == [("dispatch", 1, "large")]


def test_no_second_exceeds_its_limit() -> None:
    penstock = with_limits(Limits(requests_per_s=5.0))
    sent_at = dispatch_times(penstock, *(request(id_) for id_ in range(40)))

    assert len(sent_at) == 40
    assert all(b - a >= 1.0 for a, b in zip(sent_at, sent_at[5:], strict=False))
    assert sent_at[-1] <= 8.0


def test_no_day_exceeds_its_limit_and_a_minute_of_it_may_be_full() -> None:
    penstock = with_limits(Limits(requests_per_day=50.0))
    sent_at = dispatch_times(penstock, *(request(id_) for id_ in range(60)))

    assert sent_at[:50] == [0.0] * 50
    assert all(at >= 86_400.0 for at in sent_at[50:])


def test_the_tokens_of_a_day_are_settled_as_used() -> None:
    penstock = with_limits(Limits(tokens_per_day=1000.0))
    sent = 0
    for id_ in range(30):
        one = request(id_, at=float(id_), cost=300.0)
        sent += sum(
            isinstance(a, Dispatch) for a in penstock.handle(Arrived(one), now=one.arrived_at)
        )
        if sent == id_ + 1:
            penstock.handle(Completed(id_, 50, 0), now=id_ + 0.5)

    assert sent == 15  # 14 x 50 are used, and one of 300 fits what is left
