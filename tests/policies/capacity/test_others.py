"""The windows of others move as their sources say."""

import math

import pytest

from penstock.core.events import RefusalCause
from penstock.core.model import Request, TokenEstimate
from penstock.core.policy import Reply
from penstock.core.settings import PolicySpec
from penstock.core.signals import ServiceTime
from penstock.core.ticket import Ticket, ticket_of
from penstock.errors import ConfigError
from penstock.policies.capacity.aimd import Aimd
from penstock.policies.capacity.counting import CountingWindow, Unlimited
from penstock.policies.capacity.fixed import Fixed
from penstock.policies.capacity.gradient2 import Gradient2
from penstock.policies.capacity.vegas import Vegas
from penstock.policies.registry import make


def ticket(tokens: float = 100.0) -> Ticket:
    return ticket_of(Request(1, "batch", 0.0, TokenEstimate(tokens, tokens)), 0.5, 0.5)


def tell(window: CountingWindow, latency_s: float, in_flight: int, times: int = 1) -> None:
    for _ in range(times):
        reply = Reply(ticket(), 100, latency_s, math.nan, in_flight, True, ServiceTime())
        window.on_reply(reply, now=0.0)


def refuse(window: CountingWindow) -> None:
    window.on_refusal(ticket(), RefusalCause.OVERLOAD, now=0.0)


def test_aimd_adds_one_for_a_quick_reply_and_takes_a_tenth_for_a_slow_one() -> None:
    window = Aimd(initial=20)
    tell(window, 1.0, 20)
    assert window.window == 21.0

    tell(window, 6.0, 21)
    assert window.window == pytest.approx(18.9)
    refuse(window)
    assert window.window == pytest.approx(17.01)


def test_aimd_does_not_grow_what_is_not_used() -> None:
    window = Aimd(initial=20)
    tell(window, 1.0, 9, times=5)

    assert window.window == 20.0


def test_aimd_stays_between_one_and_the_largest() -> None:
    window = Aimd(initial=2, largest=3)
    tell(window, 1.0, 3, times=5)
    assert window.window == 3.0

    tell(window, 9.0, 3, times=50)
    assert window.window == 1.0


def test_gradient2_grows_by_its_queue_while_latency_is_as_ever() -> None:
    window = Gradient2(initial=20)
    tell(window, 1.0, 20)

    assert window.window == pytest.approx(20 * 0.8 + (20 + 4) * 0.2)


def test_gradient2_falls_with_the_gradient_but_at_most_by_half_smoothed() -> None:
    window = Gradient2(initial=100)
    tell(window, 1.0, 1, times=10)
    tell(window, 100.0, 100)

    assert window.window == pytest.approx(100 * 0.8 + (50 + 4) * 0.2)


def test_gradient2_does_not_move_what_is_not_used_and_forgets_a_bad_past() -> None:
    window = Gradient2(initial=20)
    tell(window, 100.0, 5, times=20)
    tell(window, 1.0, 5, times=100)  # the mean drifts back by 5 % a reply
    assert window.window == 20.0

    tell(window, 2.0, 20)
    assert window.window == pytest.approx(20 * 0.8 + (20 + 4) * 0.2)
    refuse(window)
    assert window.window < 20.8


def test_vegas_grows_fast_without_a_queue_and_falls_with_a_long_one() -> None:
    window = Vegas(initial=10)
    tell(window, 1.0, 10)  # the shortest so far
    tell(window, 1.0, 10)
    assert window.window == 16.0

    tell(window, 1.2, 16)  # a queue of 3: between the marks' step and 3
    assert window.window == 16.0
    tell(window, 1.1, 16)  # a queue of 2
    assert window.window == 17.0
    tell(window, 10.0, 17)
    assert window.window == 16.0
    refuse(window)
    assert window.window == 15.0


def test_vegas_takes_a_new_shortest_latency_now_and_then() -> None:
    window = Vegas(initial=1)
    tell(window, 1.0, 1, times=22)
    grown = window.window
    tell(window, 9.0, 0, times=200)
    tell(window, 9.0, math.ceil(grown), times=1)

    assert window.window > grown


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("aimd", {"initial": 0}),
        ("aimd", {"backoff": 1.0}),
        ("gradient2", {"smoothing": 0.0}),
        ("gradient2", {"tolerance": 0.5}),
        ("vegas", {"initial": 2000}),
        ("fixed", {"window": 0}),
    ],
)
def test_options_that_cannot_work_are_refused(kind: str, options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=next(iter(options))):
        make("capacity", PolicySpec(kind, options))


def test_a_fixed_window_counts_requests_and_tokens_and_learns_nothing() -> None:
    window = Fixed(window=2, window_tokens=150)
    tell(window, 100.0, 2, times=5)
    refuse(window)

    assert window.has_room(None, 1, 100.0, now=0.0)
    assert not window.has_room(ticket(), 1, 100.0, now=0.0)
    assert window.has_room(ticket(500.0), 0, 0.0, now=0.0)
    assert not window.has_room(None, 2, 0.0, now=0.0)


def test_unlimited_is_unlimited() -> None:
    window = Unlimited()
    refuse(window)

    assert window.has_room(ticket(), 10**6, 1e9, now=0.0)
