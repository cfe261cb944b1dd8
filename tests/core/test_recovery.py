"""Nobody waits for a stranger: what one request, key or refusal holds back, and for how long."""

import random
from dataclasses import replace

import pytest

from penstock.core.events import (
    Action,
    Arrived,
    Completed,
    Dispatch,
    Event,
    FirstToken,
    LimitsSeen,
    PauseLifted,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.model import Request
from penstock.core.scheduler import Scheduler
from penstock.core.upstream.account import ACCOUNTS_LIMIT
from penstock.core.upstream.breaker import PROBE_GAP_S, TURN_S
from penstock.errors import ProtocolError
from tests.core.story import arrive, complete, refuse_first, request, scheduler, tell, upstream
from tests.core.town import Town, partly

DAY_S = 86_400.0


def keyed(id_: int, account: str, *, at: float = 0.0, model: str = "") -> Request:
    one = request(id_, at=at, model=model)
    one.account = account
    return one


@pytest.mark.parametrize("cause", [RefusalCause.OVERLOAD, RefusalCause.RATE])
def test_a_refusal_during_a_long_call_holds_nobody_until_that_call_ends(
    cause: RefusalCause,
) -> None:
    penstock = scheduler(window=8)
    arrive(penstock, request(1), request(2))  # 1 takes 40 s
    tell(penstock, (1.0, Throttled(2, cause, jitter=0.9)))
    late: list[float] = []
    flying: list[int] = []
    now, id_ = 1.0, 10
    while now < 30.0:
        now += 0.5
        id_ += 1
        one = request(id_, at=now)
        actions = penstock.handle(Arrived(one), now=now) + penstock.handle(Woke(), now=now)
        for done in flying:
            actions += penstock.handle(Completed(done, 100), now=now)
        flying = [a.request.id for a in actions if isinstance(a, Dispatch)]
        late += [now - a.request.arrived_at for a in actions if isinstance(a, Dispatch)]

    assert len(late) >= 57
    assert max(late) <= 1.0 + PROBE_GAP_S


@pytest.mark.parametrize("calls", [1, 3, 8])
@pytest.mark.parametrize("outage_s", [4.0, 11.0, 31.0])
def test_small_programs_see_the_first_success_soon_after_the_providers_recovery(
    calls: int, outage_s: float
) -> None:
    penstock = scheduler(window=4, retry_share=0.1)
    dice = random.Random(calls)
    arrive(penstock, *(request(id_) for id_ in range(calls)))
    flying = dict.fromkeys(range(min(4, calls)), 0.0)
    now = 0.0
    successes: list[float] = []
    while len(successes) < calls and now < 200.0:
        wakes_at = penstock.next_wakeup()
        ends = [(at + 0.05, id_) for id_, at in flying.items()]
        now, id_ = min([*ends, *([] if wakes_at is None else [(wakes_at, -1)])])
        event: Event = Woke()
        if id_ >= 0:
            del flying[id_]
            well = now >= outage_s
            successes += [now] if well else []
            refusal = Throttled(id_, RefusalCause.OVERLOAD, None, dice.random())
            event = Completed(id_, 100) if well else refusal
        for action in penstock.handle(event, now=now):
            assert isinstance(action, Dispatch), action
            flying[action.request.id] = now

    assert successes[0] <= outage_s + PROBE_GAP_S + 0.2
    assert successes[-1] <= successes[0] + 5.0
    assert len(successes) == calls


def test_a_silent_probe_holds_the_others_for_one_probe_interval_at_most() -> None:
    penstock = scheduler(window=8)
    arrive(penstock, request(1), request(2), request(3))
    for id_ in (1, 2, 3):
        tell(penstock, (1.0, Throttled(id_, RefusalCause.OVERLOAD, 1.0)))
    probe_at = 2.0 + TURN_S
    assert tell(penstock, (probe_at, Woke())) == [("dispatch", 1, "default")]

    assert penstock.next_wakeup() == probe_at + PROBE_GAP_S
    assert tell(penstock, (4.1, Woke())) == [("dispatch", 2, "default")]


def test_a_request_that_can_never_pass_fails_alone_and_at_once() -> None:
    penstock = scheduler(window=3)
    arrive(penstock, *(request(id_) for id_ in range(1, 6)))

    told = tell(penstock, (0.1, Throttled(1, RefusalCause.REQUEST, 30.0)))

    assert told == [("reject", 1, "upstream"), ("dispatch", 4, "default")]
    assert complete(penstock, 2, now=0.2) == [("dispatch", 5, "default")]
    assert penstock.snapshot().upstreams["default"].pauses == ()


def test_a_request_that_is_too_large_for_one_upstream_goes_to_another() -> None:
    penstock = scheduler(upstream("a"), upstream("b", base_s=9.0))
    arrive(penstock, request(1))

    assert tell(penstock, (0.5, Throttled(1, RefusalCause.REQUEST))) == [("dispatch", 1, "b")]
    assert tell(penstock, (1.0, Throttled(1, RefusalCause.REQUEST))) == [("reject", 1, "upstream")]


@pytest.mark.parametrize("share", [0.02, 0.05, 0.1])
def test_random_refusals_for_the_rate_without_a_wait_back_off_one_request_each(
    share: float,
) -> None:
    town = Town(scheduler(window=32, retry_share=0.1), {"default": partly(share, "rate")})
    town.ask(10.0, 44.4)
    town.run(60.0)

    assert town.outcomes == {"completed": 444}
    assert max(town.waits_s) <= 10.0
    assert sum(town.waits_s) / 444 <= 0.5


def test_a_wait_of_days_is_believed_for_a_quarter_of_an_hour_and_then_probed() -> None:
    penstock = scheduler(window=2)
    refuse_first(penstock)
    arrive(penstock, request(1))
    tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 6.5 * DAY_S)))
    (pause,) = penstock.snapshot().upstreams["default"].pauses

    assert (pause.state, pause.cause, pause.until) == ("open", "quota", 901.0)
    (refusal,) = penstock.handle(Arrived(request(2, at=2.0)), now=2.0)
    assert isinstance(refusal, Reject)
    assert refusal.retry_after_s == 899.0
    assert arrive(penstock, request(3, at=901.0), request(4, at=901.0)) == [
        ("dispatch", 3, "default")
    ]


def test_an_operator_lifts_a_pause() -> None:
    penstock = scheduler(window=2)
    arrive(penstock, request(1), request(2))
    tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 50.0)))

    assert tell(penstock, (2.0, PauseLifted("default"))) == []  # its own wait is its own
    assert arrive(penstock, request(3, at=2.0)) == [("dispatch", 3, "default")]
    assert penstock.snapshot().upstreams["default"].pauses == ()
    with pytest.raises(ProtocolError, match="upstream 'x' is not configured"):
        penstock.handle(PauseLifted("x"), now=3.0)


def test_one_keys_spent_quota_shuts_out_no_other_key() -> None:
    penstock = scheduler(window=2)
    arrive(penstock, keyed(1, "poor"))

    assert tell(penstock, (1.0, Throttled(1, RefusalCause.QUOTA, DAY_S))) == [
        ("reject", 1, "upstream")
    ]
    assert arrive(penstock, keyed(2, "poor", at=2.0)) == [("reject", 2, "quota")]
    assert arrive(penstock, keyed(3, "rich", at=2.0)) == [("dispatch", 3, "default")]
    assert arrive(penstock, request(4, at=2.0)) == [("dispatch", 4, "default")]


def test_what_waits_for_one_keys_pause_holds_up_no_other_key_of_its_class() -> None:
    penstock = scheduler(window=1)
    refuse_first(penstock, account="slow")
    arrive(penstock, keyed(1, "slow"), keyed(2, "slow"), keyed(3, "quick"), keyed(4, "quick"))

    assert tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 1.9))) == [
        ("dispatch", 3, "default")
    ]
    assert complete(penstock, 3, now=2.0) == [("dispatch", 4, "default")]
    assert complete(penstock, 4, now=2.5) == []
    assert penstock.next_wakeup() == 2.9
    assert tell(penstock, (2.9, Woke())) == [("dispatch", 2, "default")]


def test_limits_that_are_stated_to_one_key_bind_no_other() -> None:
    penstock = scheduler(window=9)
    arrive(penstock, keyed(1, "small"), keyed(2, "big"))
    tell(penstock, (0.1, LimitsSeen("default", limit_requests=1.0, account="small")))
    told = arrive(penstock, *(keyed(id_, ("small", "big")[id_ % 2], at=0.2) for id_ in range(3, 9)))

    assert [word[1] for word in told] == [3, 4, 5, 7]  # 4 is the one of this minute


def test_keys_are_remembered_within_a_bound() -> None:
    penstock = scheduler(window=1)
    for id_ in range(ACCOUNTS_LIMIT + 50):
        arrive(penstock, keyed(id_, f"key-{id_}", at=float(id_)))
        tell(penstock, (float(id_), FirstToken(id_)), (id_ + 0.5, Completed(id_, 10)))

    assert accounts_of(penstock) == ACCOUNTS_LIMIT


def accounts_of(penstock: Scheduler) -> int:
    return len(penstock._tickets.upstreams["default"].others)


def waits_for_the_others(
    arrivals: list[Request], refusal: Throttled, refused: set[int]
) -> list[float]:
    """Return how long the calls waited that are not refused each time; a provider takes 1 ms."""
    penstock = scheduler(window=8)
    now, coming = 0.0, list(arrivals)
    waits: list[float] = []
    while now < 120.0 and len(waits) < len(arrivals) - len(refused):
        wakes_at = penstock.next_wakeup()
        due_at = coming[0].arrived_at if coming else 1e9
        now = max(now, min(due_at, 1e9 if wakes_at is None else wakes_at))
        event: Event = Arrived(coming.pop(0)) if due_at <= now else Woke()
        actions = list(penstock.handle(event, now=now))
        while actions:
            action = actions.pop(0)
            if isinstance(action, Dispatch):
                now += 1e-3
                event = replace(refusal, request_id=action.request.id)
                if action.request.id not in refused:
                    waits.append(now - action.request.arrived_at)
                    event = Completed(action.request.id, 20)
                actions += penstock.handle(event, now=now)
    assert len(waits) == len(arrivals) - len(refused)
    return waits


@pytest.mark.parametrize("calls", [8, 40])
@pytest.mark.parametrize("cause", [RefusalCause.OVERLOAD, RefusalCause.RATE])
@pytest.mark.parametrize(("poison", "wait_s"), [(1, None), (2, None), (5, None), (1, 20.0)])
def test_calls_that_are_always_refused_hold_up_no_others(
    poison: int, wait_s: float | None, cause: RefusalCause, calls: int
) -> None:
    """A circuit is probed by whoever was sent least often, and a pace is not of one request."""
    arrivals = [request(id_) for id_ in range(poison)]
    arrivals += [request(poison + n, at=1.0 + 0.5 * n) for n in range(calls)]
    refusal = Throttled(0, cause, wait_s, jitter=0.5)
    waits = waits_for_the_others(arrivals, refusal, set(range(poison)))

    assert max(waits) <= (1 + poison) * PROBE_GAP_S


@pytest.mark.parametrize("cause", [RefusalCause.OVERLOAD, RefusalCause.RATE])
def test_where_each_calls_first_attempt_is_refused_its_second_gets_its_turn(
    cause: RefusalCause,
) -> None:
    """Newcomers are probes before those that were refused, but not all the probes there are."""
    penstock, tried = scheduler(window=8), set[int]()
    now, coming = 0.0, [request(id_, at=0.25 * id_) for id_ in range(100)]
    waits: list[float] = []
    while len(waits) < 100 and now < 600.0:
        wakes_at = penstock.next_wakeup()
        due_at = coming[0].arrived_at if coming else 1e9
        now = max(now, min(due_at, 1e9 if wakes_at is None else wakes_at))
        actions = list(
            penstock.handle(Arrived(coming.pop(0)) if due_at <= now else Woke(), now=now)
        )
        while actions:
            action = actions.pop(0)
            assert isinstance(action, Dispatch)
            one, now = action.request, now + 1e-3
            event: Event = Throttled(one.id, cause, jitter=0.5)
            if one.id in tried:
                waits.append(now - one.arrived_at)
                event = Completed(one.id, 20)
            tried.add(one.id)
            actions += penstock.handle(event, now=now)

    assert len(waits) == 100
    assert max(waits) <= 15.0


@pytest.mark.parametrize("cause", [RefusalCause.OVERLOAD, RefusalCause.RATE])
def test_a_wait_that_some_calls_are_always_told_holds_up_no_others(cause: RefusalCause) -> None:
    """Every fifth second one is refused, and the one refused 20 s before comes back after it."""
    arrivals = [request(id_, at=0.25 * id_) for id_ in range(200)]
    refusal = Throttled(0, cause, 20.0, jitter=0.5)
    waits = waits_for_the_others(arrivals, refusal, set(range(7, 200, 20)))

    assert max(waits) <= PROBE_GAP_S


@pytest.mark.parametrize(
    ("cause", "wait_s"),
    [(RefusalCause.OVERLOAD, None), (RefusalCause.RATE, None), (RefusalCause.RATE, 20.0)],
)
def test_a_model_that_is_always_refused_holds_up_no_other_model(
    cause: RefusalCause, wait_s: float | None
) -> None:
    """One call in four is for it, the first of all among them: its refusal is believed once."""
    arrivals = [request(id_, at=0.1 * id_, model="ab"[id_ % 4 > 0]) for id_ in range(200)]
    refused = {each.id for each in arrivals if each.model == "a"}
    waits = waits_for_the_others(arrivals, Throttled(0, cause, wait_s, jitter=0.5), refused)

    assert max(waits) <= (wait_s or 0.0) + PROBE_GAP_S


def test_where_nothing_is_served_nobody_without_a_deadline_waits_for_longer_than_a_minute() -> None:
    penstock = scheduler(window=8)
    dated = request(9, deadline=1000.0)
    arrive(penstock, *(request(id_) for id_ in range(1, 9)), dated)
    ends: dict[int, float] = {}
    now, flying = 0.0, list(range(1, 9))
    while now < 70.0:
        now += 0.1
        actions: list[Action] = penstock.handle(Woke(), now=now)
        for id_ in flying:
            actions += penstock.handle(Throttled(id_, RefusalCause.OVERLOAD, jitter=0.9), now=now)
        flying = [each.request.id for each in actions if isinstance(each, Dispatch)]
        refused = [each for each in actions if isinstance(each, Reject)]
        ends |= {each.request.id: now for each in refused}
        assert {(each.reason, each.retry_after_s) for each in refused} <= {("upstream", None)}

    assert ends.keys() == set(range(1, 9))  # also who was not sent again since the first refusal
    assert 60.0 <= min(ends.values()) <= max(ends.values()) <= 60.0 + PROBE_GAP_S + 1.0


@pytest.mark.parametrize("others_are_served", [False, True])
def test_who_leaves_has_the_refusal_before_and_comes_again_where_others_are_served(
    *, others_are_served: bool
) -> None:
    penstock = scheduler(window=8)
    refused: list[Reject] = []
    now, flying = 0.0, [0]
    one = request(0)
    one.leaves_at = 9.0
    arrive(penstock, one)
    while now < 9.0:
        now += 0.1
        actions: list[Action] = []
        for id_ in flying:
            good = id_ > 0 and others_are_served
            event: Event = Throttled(id_, RefusalCause.OVERLOAD, jitter=0.9)
            actions += penstock.handle(Completed(id_, 100) if good else event, now=now)
        actions += penstock.handle(Woke(), now=now)
        actions += penstock.handle(Arrived(request(round(10 * now), at=now)), now=now)
        flying = [each.request.id for each in actions if isinstance(each, Dispatch)]
        refused += [each for each in actions if isinstance(each, Reject)]

    assert [(each.request.id, each.reason) for each in refused] == [(0, "upstream")]
    assert (refused[0].retry_after_s is not None) is others_are_served
