"""New settings are taken between two events: all or nothing, and what was learnt stays."""

import contextlib
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import (
    Arrived,
    Cancelled,
    Completed,
    Event,
    LimitsSeen,
    Reconfigured,
    RefusalCause,
    Throttled,
    Woke,
)
from penstock.core.model import TrafficClass
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Limits, PolicySpec, Settings, Stack, UpstreamSettings
from penstock.errors import ProtocolError
from penstock.policies.registry import build_scheduler
from tests.core.story import arrive, complete, is_at_rest, refuse_first, request, tell

FIXED = PolicySpec("fixed", {"window": 1})
BATCH, INTERACTIVE = TrafficClass("batch"), TrafficClass("interactive", weight=4.0)
A, B = UpstreamSettings("a"), UpstreamSettings("b")
FREE = Limits()
BEFORE = Settings((INTERACTIVE, BATCH), (A,), Stack(capacity=FIXED))


def window(size: int) -> Stack:
    return Stack(capacity=PolicySpec("fixed", {"window": size}))


def taken(penstock: Scheduler, settings: Settings, at: float) -> list[object]:
    return list(tell(penstock, (at, Reconfigured(settings))))


def test_a_wider_window_lets_what_waits_go_at_once() -> None:
    penstock = build_scheduler(BEFORE)
    assert arrive(penstock, *(request(id_) for id_ in (1, 2, 3))) == [("dispatch", 1, "a")]

    assert taken(penstock, replace(BEFORE, stack=window(2)), 1.0) == [("dispatch", 2, "a")]
    assert penstock.snapshot().generation == 2
    assert penstock.settings.stack == window(2)


def test_what_was_learnt_of_an_upstream_stays_while_its_name_and_place_stay() -> None:
    penstock = build_scheduler(replace(BEFORE, stack=Stack()))
    for id_ in range(40):
        arrive(penstock, request(id_, at=id_ * 10.0))
        complete(penstock, id_, now=id_ * 10.0 + 3.0)
    before = penstock.snapshot().upstreams["a"]
    assert before.service[""] != (A.base_s, A.s_per_token)

    limited = replace(A, limits=Limits(requests_per_min=100.0), base_s=9.0)
    taken(penstock, replace(BEFORE, stack=Stack(), upstreams=(B, limited)), 500.0)
    after = penstock.snapshot().upstreams["a"]
    assert (after.service, after.window) == (before.service, before.window)

    moved = replace(A, identity="elsewhere")
    taken(penstock, replace(BEFORE, stack=Stack(), upstreams=(moved,)), 501.0)
    assert penstock.snapshot().upstreams["a"].service == {}


def limited(limits: Limits, **by_model: Limits) -> Settings:
    upstream = replace(A, limits=limits, model_limits=by_model)
    return replace(BEFORE, upstreams=(upstream,), stack=window(1000))


def sent_within(penstock: Scheduler, span_s: float, at: float) -> int:
    """Let 100 requests come, run the clock for a while, and return how many of them went."""
    ids = [int(at * 1000) + i for i in range(100)]
    words = arrive(penstock, *(request(id_, at=at) for id_ in ids))
    end = at + span_s
    while (at := penstock.next_wakeup() or end) < end:
        words += tell(penstock, (at, Woke()))
    tell(penstock, *((end, Cancelled(id_)) for id_ in ids))
    return len(words)


@pytest.mark.parametrize(
    ("limits", "room"),
    [
        (Limits(requests_per_min=60.0, tokens_per_min=9e6), 5),  # another limit has changed
        (Limits(requests_per_min=60.0, requests_per_day=1e5), 5),
        (Limits(requests_per_min=30.0), 0),
        (Limits(requests_per_min=100.0), 44),
    ],
)
def test_what_was_used_of_a_limit_stays_used_when_limits_change(limits: Limits, room: int) -> None:
    for by_model in ({}, {"": limits}):
        first = Limits(requests_per_min=60.0)
        penstock = build_scheduler(
            limited(FREE if by_model else first, **dict.fromkeys(by_model, first))
        )
        assert sent_within(penstock, 50.0, 0.0) == 55  # the pace spreads a minute's 60
        taken(penstock, limited(FREE if by_model else limits, **by_model), 50.0)
        assert sent_within(penstock, 9.0, 50.0) == room


def test_a_days_and_a_headers_limit_outlive_a_reload() -> None:
    day = Limits(requests_per_day=60.0)
    penstock = build_scheduler(limited(day))
    assert sent_within(penstock, 50.0, 0.0) == 60
    taken(penstock, limited(replace(day, tokens_per_min=9e6)), 50.0)
    assert sent_within(penstock, 50.0, 80_000.0) == 0

    penstock = build_scheduler(limited(FREE))
    tell(penstock, (0.0, LimitsSeen("a", limit_requests=20, remaining_requests=3)))
    taken(penstock, limited(Limits(requests_per_min=60.0)), 1.0)
    assert sent_within(penstock, 50.0, 1.0) == 19  # 3, and one more each 3 s
    taken(penstock, limited(Limits(requests_per_min=10.0)), 90.0)
    assert sent_within(penstock, 50.0, 200.0) == 10


def test_a_pause_outlives_a_reload() -> None:
    penstock = build_scheduler(BEFORE)
    refuse_first(penstock)
    arrive(penstock, request(1))
    tell(penstock, (1.0, Throttled(1, RefusalCause.OVERLOAD, retry_after_s=30.0)))
    taken(penstock, replace(BEFORE, stack=window(9)), 2.0)
    assert arrive(penstock, request(2, at=2.5)) == []
    assert penstock.snapshot().upstreams["a"].open[0].until == 3.0


def test_a_class_that_is_gone_is_served_until_it_is_empty() -> None:
    penstock = build_scheduler(BEFORE)
    arrive(penstock, *(request(id_, "batch") for id_ in (1, 2)))
    taken(penstock, replace(BEFORE, classes=(INTERACTIVE,)), 1.0)
    # Its caller was read before the reload, and arrives after it.
    assert arrive(penstock, request(3, "batch", at=1.0)) == []

    assert complete(penstock, 1, now=2.0) == [("dispatch", 2, "a")]
    assert complete(penstock, 2, now=3.0) == [("dispatch", 3, "a")]
    complete(penstock, 3, now=4.0)
    assert is_at_rest(penstock)


def test_a_class_that_is_renamed_takes_what_waits_and_flies_along() -> None:
    penstock = build_scheduler(BEFORE)
    arrive(penstock, *(request(id_, "batch") for id_ in (1, 2)))
    bulk = TrafficClass("bulk", was=("batch",))
    taken(penstock, replace(BEFORE, classes=(INTERACTIVE, bulk)), 1.0)
    lane = penstock.snapshot().lanes[0]
    assert (lane.classes["bulk"].waiting, lane.classes["bulk"].in_flight) == (1, 1)
    assert (lane.classes["batch"].waiting, lane.classes["batch"].in_flight) == (0, 0)

    arrive(penstock, request(3, "batch", at=1.0))
    assert penstock.snapshot().lanes[0].classes["bulk"].waiting == 2
    for id_ in (1, 2, 3):
        complete(penstock, id_, now=1.0 + id_)
    assert is_at_rest(penstock)


def test_new_weights_count_from_the_next_choice_and_debts_stay() -> None:
    drr = replace(BEFORE, stack=Stack(allocation=PolicySpec("drr"), capacity=FIXED))
    penstock = build_scheduler(drr)
    arrive(penstock, request(1, "batch", cost=900.0), request(2, "batch", cost=900.0))
    owed = penstock.snapshot().lanes[0].classes["batch"].deficit_tokens
    taken(penstock, replace(drr, classes=(INTERACTIVE, replace(BATCH, weight=9.0))), 1.0)
    assert penstock.snapshot().lanes[0].classes["batch"].deficit_tokens == owed


def test_what_waits_is_ordered_anew_where_the_ordering_changes() -> None:
    fifo = replace(BEFORE, stack=Stack(ordering=PolicySpec("fifo"), capacity=FIXED))
    penstock = build_scheduler(fifo)
    arrive(penstock, request(1), request(2, cost=900.0), request(3, cost=10.0))
    shortest = Stack(ordering=PolicySpec("shortest_first"), capacity=FIXED)
    assert taken(penstock, replace(BEFORE, stack=shortest), 1.0) == []
    assert complete(penstock, 1, now=2.0) == [("dispatch", 3, "a")]


def test_an_upstream_that_comes_serves_what_waits() -> None:
    penstock = build_scheduler(BEFORE)
    arrive(penstock, *(request(id_) for id_ in (1, 2)))
    assert taken(penstock, replace(BEFORE, upstreams=(A, B)), 1.0) == [("dispatch", 2, "b")]
    complete(penstock, 1, now=2.0)
    complete(penstock, 2, now=3.0)
    assert is_at_rest(penstock)


def test_an_upstream_with_calls_in_flight_is_not_removed() -> None:
    penstock = build_scheduler(replace(BEFORE, upstreams=(A, B)))
    assert arrive(penstock, request(1)) == [("dispatch", 1, "a")]
    with pytest.raises(ProtocolError, match="1 calls are in flight to upstream 'a'"):
        taken(penstock, replace(BEFORE, upstreams=(B,)), 1.0)
    assert penstock.snapshot().generation == 1

    # First its models go to others, then it may leave.
    taken(penstock, replace(BEFORE, upstreams=(replace(A, models=("none",)), B)), 2.0)
    assert arrive(penstock, request(2, at=2.0)) == [("dispatch", 2, "b")]
    complete(penstock, 1, now=3.0)
    taken(penstock, replace(BEFORE, upstreams=(B,)), 4.0)
    complete(penstock, 2, now=5.0)
    assert is_at_rest(penstock)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (replace(BEFORE, stack=Stack(ordering=PolicySpec("x"))), "is not known"),
        (replace(BEFORE, stack=Stack(capacity=PolicySpec("fixed", {"window": 1.5}))), "window"),
        (replace(BEFORE, upstreams=(replace(A, models=("m",)),)), "serves model ''"),
    ],
)
def test_what_cannot_be_used_changes_nothing(settings: Settings, words: str) -> None:
    penstock = build_scheduler(BEFORE)
    arrive(penstock, *(request(id_) for id_ in (1, 2)))
    before = penstock.snapshot()
    with pytest.raises(ProtocolError, match=words):
        taken(penstock, settings, 0.0)
    assert penstock.snapshot() == before
    assert complete(penstock, 1, now=1.0) == [("dispatch", 2, "a")]


_UPSTREAMS = st.lists(
    st.builds(
        UpstreamSettings,
        st.sampled_from("ab"),
        st.sampled_from([(), ("m",), ("m", "n"), ("*",)]),
        st.sampled_from([None, FIXED, PolicySpec("residual"), PolicySpec("aimd")]),
        st.sampled_from([Limits(), Limits(requests_per_min=600.0)]),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda each: each.name,
).map(tuple)
_CLASSES = st.sampled_from(
    [
        (INTERACTIVE, BATCH),
        (BATCH,),
        (replace(INTERACTIVE, was=("batch",)),),
        (TrafficClass("x", was=("batch", "interactive")),),
        (replace(BATCH, weight=7.0, queue_limit=1, was=("x",)), INTERACTIVE),
    ]
)
_SETTINGS = st.builds(
    lambda classes, upstreams, allocation, ordering, sticky, turns: Settings(
        classes,
        upstreams,
        Stack(PolicySpec(allocation), PolicySpec(ordering), capacity=FIXED),
        sticky=sticky,
        tenant_turns=turns,
    ),
    _CLASSES,
    _UPSTREAMS,
    st.sampled_from(["adaptive_drr", "drr", "fair_queuing", "quota_tiered", "short_priority"]),
    st.sampled_from(["feasible_set", "edf", "fifo", "shortest_first"]),
    st.booleans(),
    st.booleans(),
)


@given(st.lists(st.tuples(_SETTINGS, st.integers(0, 5)), max_size=8), st.data())
def test_however_often_it_is_reconfigured_every_request_ends_once(
    story: list[tuple[Settings, int]], data: st.DataObject
) -> None:
    penstock = build_scheduler(replace(BEFORE, upstreams=(A, B)))
    flying: dict[int, None] = {}
    open_: dict[int, None] = {}
    now, next_id = 0.0, 1

    def hear(event: Event) -> None:
        for told in tell(penstock, (now, event)):
            kind, id_ = told[0], int(str(told[1]))
            if kind == "dispatch":
                assert id_ in open_
                assert id_ not in flying
                flying[id_] = None
            elif kind == "reject":
                open_.pop(id_)

    for settings, arrivals in story:
        now += 1.0
        for _ in range(arrivals):
            name = data.draw(st.sampled_from([c.name for c in penstock.settings.classes]))
            model = data.draw(st.sampled_from(["m", "n"]))
            open_[next_id] = None
            hear(Arrived(request(next_id, name, at=now, model=model, tenant=str(next_id % 2))))
            next_id += 1
        with contextlib.suppress(ProtocolError):
            hear(Reconfigured(settings))
        for id_ in list(flying)[: data.draw(st.integers(0, 2))]:
            now += 0.5
            del flying[id_], open_[id_]
            hear(Completed(id_, 50) if id_ % 3 else Cancelled(id_))
        assert penstock.snapshot().in_flight == len(flying)
        assert not penstock.faults
    for _ in range(10_000):
        if not open_:
            break
        now += 1.0
        hear(Woke())
        for id_ in list(flying):
            del flying[id_], open_[id_]
            hear(Completed(id_, 50))
    assert not open_
    assert is_at_rest(penstock)
    assert not penstock.faults


def test_a_call_in_flight_where_its_model_is_no_longer_served_ends_like_any_other() -> None:
    penstock = build_scheduler(replace(BEFORE, upstreams=(A, B)))
    arrive(penstock, request(1, model="n"), request(2, model="n"))
    taken(penstock, replace(BEFORE, upstreams=(A, replace(B, models=("m",)))), 1.0)
    complete(penstock, 1, now=2.0)
    complete(penstock, 2, now=3.0)
    assert is_at_rest(penstock)
