"""Stated limits hold in every minute, and the quota is used while demand lasts."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.events import Arrived, Completed, LimitsSeen, Woke
from penstock.core.model import Request, TokenEstimate
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Limits
from penstock.core.ticket import Ticket, ticket_of
from penstock.core.upstream.limits import WindowLimits
from tests.core.story import arrive, complete, request, scheduler, tell, upstream


def ticket(id_: int, *, tokens: float = 100.0, prompt_tokens: int = 0) -> Ticket:
    estimate = TokenEstimate(tokens, tokens)
    return ticket_of(Request(id_, "b", 0.0, estimate, prompt_tokens=prompt_tokens), 1.0, 1.0)


def sends(limits: WindowLimits, *, until: float, keep: float, tokens: float = 100.0) -> list[float]:
    """Return when requests went whose sender always has another one."""
    at: list[float] = []
    now = 0.0
    while now < until:
        one = ticket(len(at), tokens=tokens)
        free_at = limits.room_at(one, keep, now=now)
        if free_at > now:
            now = free_at
        else:
            limits.reserve(one, now=now)
            at.append(now)
    return at


def most_in_a_minute(at: list[float]) -> int:
    first = most = 0
    for last, now in enumerate(at):
        while at[first] <= now - 60.0:
            first += 1
        most = max(most, last - first + 1)
    return most


@pytest.mark.parametrize("keep", [0.0, 0.5])
@pytest.mark.parametrize("limit", [1, 2, 10, 60, 1000])
def test_no_minute_exceeds_the_limit_and_its_quota_is_used(limit: int, keep: float) -> None:
    at = sends(WindowLimits(Limits(requests_per_min=limit)), until=606.0, keep=keep)

    assert most_in_a_minute(at) <= limit
    assert len(at) >= 0.97 * 10 * limit


@given(limit=st.integers(1, 30), gaps=st.lists(st.floats(0.0, 40.0), max_size=120))
@settings(deadline=None)
def test_no_minute_exceeds_the_limit_whenever_requests_come(limit: int, gaps: list[float]) -> None:
    limits, at, now = WindowLimits(Limits(requests_per_min=limit)), [], 0.0
    for id_, gap_s in enumerate(gaps):
        now += gap_s
        one = ticket(id_)
        now = max(now, limits.room_at(one, 0.0, now=now))
        while (free_at := limits.room_at(one, 0.0, now=now)) > now:
            now = free_at
        limits.reserve(one, now=now)
        at.append(now)

    assert most_in_a_minute(at) <= limit


def test_tokens_are_reserved_as_predicted_and_settled_as_used() -> None:
    limits = WindowLimits(Limits(tokens_per_min=1000.0))
    dear = ticket(1, tokens=900.0)
    limits.reserve(dear, now=0.0)
    assert limits.room_at(ticket(2, tokens=200.0), 0.0, now=1.0) > 60.0

    limits.settle(dear, 100, 0)
    assert limits.room_at(ticket(2, tokens=200.0), 0.0, now=1.0) == 1.0


def test_input_and_output_tokens_have_limits_of_their_own() -> None:
    limits = WindowLimits(Limits(input_tokens_per_min=1000.0, output_tokens_per_min=10_000.0))
    limits.reserve(ticket(1, prompt_tokens=900), now=0.0)

    assert limits.room_at(ticket(2, prompt_tokens=50), 0.0, now=0.0) == 0.0
    assert limits.room_at(ticket(3, prompt_tokens=200), 0.0, now=0.0) > 60.0


def test_a_request_above_the_whole_limit_goes_when_nothing_else_did() -> None:
    limits = WindowLimits(Limits(tokens_per_min=100.0))
    giant = ticket(1, tokens=5000.0)
    assert limits.room_at(giant, 0.0, now=0.0) == 0.0

    limits.reserve(giant, now=0.0)
    assert limits.room_at(ticket(2, tokens=1.0), 0.0, now=1.0) > 60.0


def test_limits_are_learnt_from_an_upstream_but_never_loosened() -> None:
    limits = WindowLimits(Limits(requests_per_min=5.0))
    limits.learn(LimitsSeen("u", limit_requests=100.0), now=0.0)
    assert len(sends(limits, until=59.0, keep=0.0)) == 5

    tighter = WindowLimits(Limits(requests_per_min=5.0))
    tighter.learn(LimitsSeen("u", limit_requests=2.0), now=0.0)
    assert len(sends(tighter, until=59.0, keep=0.0)) == 2


def test_what_others_used_of_a_shared_account_counts() -> None:
    limits = WindowLimits(Limits())
    limits.learn(LimitsSeen("u", limit_requests=60.0, remaining_requests=2.0), now=0.0)

    sent = sends(limits, until=0.5, keep=0.0)
    assert len(sent) == 2


def test_a_bucket_that_is_empty_after_every_request_is_waited_for() -> None:
    limits = WindowLimits(Limits())
    limits.learn(LimitsSeen("u", limit_requests=60.0, remaining_requests=0.0), now=0.0)

    assert 0.9 < limits.room_at(ticket(1), 0.0, now=0.0) <= 1.0  # 60 a minute is one a second
    assert limits.room_at(ticket(1), 0.0, now=1.0) == 1.0


def test_a_limit_that_falls_is_waited_for_two_of_its_minutes_at_most() -> None:
    limits = WindowLimits(Limits())
    limits.learn(LimitsSeen("u", limit_tokens=33, remaining_tokens=33), now=0.0)
    limits.reserve(ticket(1, tokens=100.0), now=0.0)
    limits.learn(LimitsSeen("u", limit_tokens=1), now=0.0)

    now = 0.0
    while (at := limits.room_at(ticket(2, tokens=100.0), 0.0, now=now)) > now:
        now = at
    assert now <= 121.0  # at 1 a minute the other 66 would hold everybody for an hour


def test_without_limits_nothing_is_measured() -> None:
    limits = WindowLimits(Limits())
    one = ticket(1)
    limits.reserve(one, now=0.0)
    limits.settle(one, 10, 10)

    assert limits.unlimited
    assert limits.room_at(ticket(2, tokens=1e9), 0.0, now=0.0) == 0.0
    assert math.isinf(Limits().requests_per_min)


def test_input_that_the_provider_does_not_count_leaves_room_for_others() -> None:
    penstock = scheduler(upstream(window=9, limits=Limits(input_tokens_per_min=1000)))
    first, second = (request(id_, prompt_tokens=900) for id_ in (1, 2))
    assert tell(penstock, (0.0, Arrived(first))) == [("dispatch", 1, "default")]
    assert tell(penstock, (0.0, Arrived(second))) == []

    read_from_cache = Completed(1, 100, 900, cached_tokens=850, counted_input_tokens=50)
    assert tell(penstock, (1.0, read_from_cache)) == [("dispatch", 2, "default")]


def test_once_the_cache_holds_the_prompts_no_more_is_reserved_than_counts() -> None:
    penstock = scheduler(upstream(window=99, limits=Limits(input_tokens_per_min=30_000)))
    for id_ in range(1, 9):
        arrived = Arrived(request(id_, prompt_tokens=20_000))
        assert tell(penstock, (0.0, arrived)) == [("dispatch", id_, "default")]
        tell(penstock, (0.0, Completed(id_, 100, 20_000, True, 19_900, 100)))

    for id_ in range(10, 50):
        arrived = Arrived(request(id_, prompt_tokens=20_000))
        assert tell(penstock, (0.0, arrived)) == [("dispatch", id_, "default")]

    tell(penstock, (0.0, Completed(10, 100, 20_000)))  # a miss: the whole prompt counted
    assert tell(penstock, (0.0, Arrived(request(50, prompt_tokens=20_000)))) == []


def sent_until(penstock: Scheduler, until: int, *, model: str, states: bool = False) -> int:
    """Return how many of 400 calls go, each served a second later, with a header or without."""
    flying = arrive(penstock, *(request(id_, cost=1.0, model=model) for id_ in range(400)))
    sent = len(flying)
    for now in range(1, until):
        told = tell(penstock, (float(now), Woke()))
        if states:
            tell(penstock, (float(now), LimitsSeen("default", limit_requests=5.0, model=model)))
        for _, id_, _ in flying:
            told += complete(penstock, int(str(id_)), now=float(now), tokens=1)
        flying = told
        sent += len(told)
    return sent


@pytest.mark.parametrize(
    "seen",
    [
        LimitsSeen("default", limit_requests=5.0),
        LimitsSeen("default", limit_requests=5.0, remaining_requests=4.0),
        LimitsSeen("default", limit_tokens=5.0),
        LimitsSeen("default", limit_output_tokens=5.0, model="m"),
    ],
)
def test_a_limit_that_one_answer_states_and_no_other_is_forgotten_after_five_seconds(
    seen: LimitsSeen,
) -> None:
    for until, least, most in ((5, 3, 5), (60, 400, 400)):
        penstock = scheduler(window=9)
        tell(penstock, (0.0, seen))

        assert least <= sent_until(penstock, until, model=seen.model) <= most


def test_a_limit_that_answers_go_on_stating_holds() -> None:
    penstock = scheduler(window=9)
    tell(penstock, (0.0, LimitsSeen("default", limit_requests=5.0)))

    assert sent_until(penstock, 240, model="", states=True) <= 20


def answered(penstock: Scheduler, count: int, *, model: str = "") -> None:
    """Let so many calls go and be answered at once, without a word on limits."""
    for id_ in range(1000, 1000 + count):
        arrive(penstock, request(id_, cost=1.0, model=model))
        complete(penstock, id_, now=0.0, tokens=1)


def sent_of_ten(penstock: Scheduler, seen: LimitsSeen, *, again: bool) -> list[float]:
    """Return when ten calls went, each served a second later; `again`: each states it too."""
    at: list[float] = []
    flying = arrive(penstock, *(request(id_, cost=1.0, model=seen.model) for id_ in range(10)))
    for now in range(1, 700):
        at += [now - 1.0] * len(flying)
        told = tell(penstock, (float(now), Woke()))
        for _, id_, _ in flying:
            if again:
                told += tell(penstock, (float(now), seen))
            told += complete(penstock, int(str(id_)), now=float(now), tokens=1)
        flying = told
    return at


STRAY = [
    LimitsSeen("default", limit_requests=1.0),
    LimitsSeen("default", limit_requests=1.0, remaining_requests=0.0, reset_requests_s=1e9),
    LimitsSeen("default", limit_tokens=1.0),
    LimitsSeen("default", limit_requests=1.0, model="m"),
    LimitsSeen("default", limit_output_tokens=1.0, remaining_output_tokens=0.0, model="m"),
]


@pytest.mark.parametrize("seen", STRAY)
def test_a_limit_of_one_that_one_answer_states_against_those_before_holds_for_seconds(
    seen: LimitsSeen,
) -> None:
    penstock = scheduler(window=9)
    answered(penstock, 3, model=seen.model)
    tell(penstock, (0.0, seen))

    assert sent_of_ten(penstock, seen, again=False)[-1] <= 7.0


def test_a_stray_limit_below_the_one_that_is_stated_holds_for_seconds() -> None:
    penstock = scheduler(window=9)
    usual = LimitsSeen("default", limit_requests=600.0)
    tell(penstock, (0.0, usual))
    answered(penstock, 3)
    tell(penstock, (0.0, STRAY[0]))

    assert sent_of_ten(penstock, usual, again=True)[-1] <= 7.0


@pytest.mark.parametrize("seen", STRAY)
@pytest.mark.parametrize("silent", [0, 3])
def test_a_limit_that_is_truly_new_is_held_but_for_the_one_request_that_asks(
    seen: LimitsSeen, silent: int
) -> None:
    penstock = scheduler(window=9)
    answered(penstock, silent, model=seen.model)
    tell(penstock, (0.0, seen))

    asked = 1 if silent else 0
    assert most_in_a_minute(sent_of_ten(penstock, seen, again=True)) <= 1 + asked


def test_a_limit_that_is_doubted_never_loosens_the_configured_one() -> None:
    penstock = scheduler(upstream(window=30, limits=Limits(requests_per_min=4.0)))
    answered(penstock, 1)
    tell(penstock, (0.0, LimitsSeen("default", limit_requests=3.0)))
    sent = len(arrive(penstock, *map(request, range(20))))
    for now in range(60):  # nothing is answered that could be silent on it
        sent += len(tell(penstock, (float(now), Woke())))

    assert sent == 4 - 1
