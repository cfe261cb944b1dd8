"""Tenants of one class take turns by what each has been served; nobody waits for a stranger."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import (
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Event,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Limits
from tests.core.story import (
    BATCH,
    DEAR_TOKENS,
    INTERACTIVE,
    Bouncer,
    arrive,
    complete,
    decisions,
    guarded,
    request,
    scheduler,
    sent,
    told,
    upstream,
)
from tests.properties.test_cost import cost_of


def serve(penstock: Scheduler, first: int, *, tokens: dict[int, int] | None = None) -> list[int]:
    """Complete whatever flies, one a second, and return the order in which requests went."""
    order = [first]
    for now in itertools.count(1):
        tokens_of_this = (tokens or {}).get(order[-1], 100)
        actions = penstock.handle(Completed(order[-1], tokens_of_this), now=float(now))
        if not actions:
            return order
        order += sent(actions)
    raise AssertionError("itertools.count ended")


def test_five_calls_of_a_second_tenant_do_not_wait_for_the_thousand_of_the_first() -> None:
    penstock = scheduler(queue_limit=2000)
    arrive(penstock, *(request(i, tenant="flood") for i in range(1000)))
    arrive(penstock, *(request(1000 + i, tenant="polite") for i in range(5)))

    order = serve(penstock, 0)

    assert [i for i in order if i >= 1000] == [1000, 1001, 1002, 1003, 1004]
    assert max(order.index(1000 + i) for i in range(5)) <= 10  # every second turn is its own


@pytest.mark.parametrize("account", ["", "key"])
def test_tenants_take_turns_where_their_models_limit_holds_all_of_them_back(account: str) -> None:
    terms = replace(upstream(window=200), model_limits={"m": Limits(requests_per_s=2.0)})
    penstock = scheduler(terms, queue_limit=2000)
    calls = [request(i, model="m", tenant="flood" if i < 100 else "polite") for i in range(105)]
    for each in calls:
        each.account = account

    arrive(penstock, *calls)
    order: list[int] = []
    while (at := penstock.next_wakeup()) is not None:
        order += sent(penstock.handle(Woke(), now=at))

    assert len(order) >= 100
    assert all(id_ in order[:12] for id_ in range(100, 105))  # every second turn is its own


def test_without_turns_a_class_is_served_as_its_ordering_says() -> None:
    penstock = scheduler(tenant_turns=False)
    arrive(penstock, *(request(i, tenant="ab"[i >= 4]) for i in range(8)))

    assert serve(penstock, 0) == list(range(8))


def test_what_a_reply_really_cost_decides_whose_turn_it_is() -> None:
    penstock = scheduler()
    arrive(penstock, *(request(i, tenant="wordy") for i in range(3)))
    arrive(penstock, *(request(3 + i, tenant="terse") for i in range(4)))

    # The wordy tenant's first reply takes 400 tokens where 100 were predicted.
    assert serve(penstock, 0, tokens={0: 400}) == [0, 3, 4, 5, 6, 1, 2]


def test_a_refunded_call_costs_its_tenant_nothing() -> None:
    penstock = scheduler()
    arrive(penstock, request(0, tenant="a", cost=900), request(1, tenant="a"))
    arrive(penstock, request(2, tenant="b"), request(3, tenant="b"))

    assert told(penstock.handle(Completed(0, 0), now=1.0)) == [("dispatch", 2, "default")]
    assert complete(penstock, 2, now=2.0) == [("dispatch", 1, "default")]


def test_idleness_earns_nothing() -> None:
    penstock = scheduler()
    # `late` was here first and is served long before; then `busy` alone has 50 requests served.
    arrive(penstock, request(0, tenant="late"))
    arrive(penstock, *(request(1 + i, tenant="busy") for i in range(54)))
    now = 0.0
    for id_ in range(51):
        now += 1.0
        complete(penstock, id_, now=now)
    for i in range(4):
        penstock.handle(Arrived(request(100 + i, at=now, tenant="late")), now=now)

    order = []
    flying = 51
    while True:
        now += 1.0
        ids = sent(penstock.handle(Completed(flying, 100), now=now))
        if not ids:
            break
        (flying,) = ids
        order.append(flying)

    assert [i >= 100 for i in order] == [True, False, True, False, True, False, True]


def test_a_tenant_that_comes_gets_its_part_of_the_places_and_then_every_second_one() -> None:
    penstock = scheduler(upstream(window=8))
    arrive(penstock, *(request(i, tenant="flood") for i in range(40)))
    arrive(penstock, *(request(100 + i, tenant="polite") for i in range(20)))

    order = list(range(8))
    for i in range(14):
        order += sent(penstock.handle(Completed(order[i], 100), now=float(i)))
    polite = [id_ >= 100 for id_ in order[8:]]
    assert polite[:4] == [True] * 4  # half of eight
    assert sum(polite[4:]) == 5


def test_one_dear_call_in_flight_does_not_make_every_place_as_dear() -> None:
    penstock = scheduler(upstream(window=8))
    arrive(penstock, *(request(i, tenant="flood") for i in range(7)))
    arrive(penstock, request(7, cost=4000, tenant="flood"))  # flies throughout
    arrive(penstock, *(request(8 + i, tenant="flood") for i in range(40)))
    arrive(penstock, *(request(100 + i, tenant="polite") for i in range(200)))

    order = list(range(7))
    for i in range(100):
        order += sent(penstock.handle(Completed(order[i], 100), now=float(i)))
    in_a_row = [id_ < 100 for id_ in order[7:]].index(True)
    # The flood is charged 4000; half of what flies beside that is 2350.
    assert 40 <= in_a_row <= 64


@pytest.mark.parametrize("at_once", [1, 3])
def test_who_begins_to_wait_again_and_again_gets_no_more_than_who_waits_throughout(
    at_once: int,
) -> None:
    penstock = scheduler(upstream(window=8))
    arrive(penstock, *(request(i, tenant="flood") for i in range(300)))
    ids = itertools.count(1000)
    order = list(range(8))
    shrewd = 0  # of its calls wait
    for step in range(200):
        if not shrewd:
            calls = [request(next(ids), at=float(step), tenant="shrewd") for _ in range(at_once)]
            arrive(penstock, *calls)
            shrewd = at_once
        (id_,) = sent(penstock.handle(Completed(order[step], 100), now=float(step)))
        order.append(id_)
        shrewd -= id_ >= 1000
    assert 90 <= sum(id_ >= 1000 for id_ in order) <= 100 + 4


def test_a_tenant_that_left_is_forgotten() -> None:
    penstock = scheduler()
    arrive(penstock, *(request(i, tenant=f"t{i}") for i in range(50)))
    for i in range(1, 50):
        penstock.handle(Cancelled(i), now=1.0)

    assert complete(penstock, 0, now=2.0) == []
    assert arrive(penstock, request(99, at=3.0, tenant="t7")) == [("dispatch", 99, "default")]


def test_a_full_queue_refuses_the_newest_of_the_tenant_with_the_most() -> None:
    penstock = scheduler(queue_limit=6)
    arrive(penstock, *(request(i, tenant="flood") for i in range(7)))

    assert [arrive(penstock, request(10 + i, tenant="polite")) for i in range(4)] == [
        [("reject", 6, "queue_full")],
        [("reject", 5, "queue_full")],
        [("reject", 4, "queue_full")],
        [("reject", 13, "queue_full")],  # three each: nobody's place is taken back and forth
    ]
    assert serve(penstock, 0) == [0, 10, 1, 11, 2, 12, 3]


def test_a_class_that_is_full_refuses_there_and_a_full_scheduler_where_the_tenant_has_most() -> (
    None
):
    narrow = replace(INTERACTIVE, queue_limit=3)
    penstock = scheduler(queue_limit=6, classes=(narrow, BATCH))
    arrive(penstock, *(request(i, tenant="flood") for i in range(4)))
    arrive(penstock, *(request(10 + i, "interactive", tenant="flood") for i in range(3)))

    assert arrive(penstock, request(20, "interactive", tenant="polite")) == [
        ("reject", 12, "queue_full")
    ]
    penstock.handle(Cancelled(20), now=1.0)
    penstock.handle(Arrived(request(13, at=1.0, tenant="flood")), now=1.0)
    assert arrive(penstock, request(21, "interactive", at=2.0, tenant="polite")) == [
        ("reject", 13, "queue_full")
    ]


def of_tokens(limit: float) -> Scheduler:
    return scheduler(classes=(INTERACTIVE, replace(BATCH, queue_limit_tokens=limit)))


def test_a_queue_full_by_tokens_refuses_the_newest_of_the_tenant_with_the_most_tokens() -> None:
    penstock = of_tokens(600.0)
    arrive(penstock, *(request(i, tenant="flood") for i in range(7)))

    assert [arrive(penstock, request(10 + i, cost=150, tenant="polite")) for i in range(3)] == [
        [("reject", 6, "queue_full"), ("reject", 5, "queue_full")],
        [("reject", 4, "queue_full")],
        [("reject", 12, "queue_full")],  # 450 of its own would be more than 300
    ]
    # Few requests may be many tokens: the tenant of the one dear call has the most.
    penstock = of_tokens(600.0)
    arrive(penstock, *(request(i, cost=20, tenant="many") for i in range(4)))
    arrive(penstock, request(9, cost=500, tenant="dear"))
    assert arrive(penstock, request(10, cost=90, tenant="many")) == [("reject", 9, "queue_full")]


def test_nobody_gives_way_where_room_for_all_the_tokens_would_be_unfair() -> None:
    penstock = of_tokens(600.0)
    arrive(penstock, *(request(i, tenant="flood") for i in range(7)))

    assert arrive(penstock, request(9, cost=400, tenant="greedy")) == [("reject", 9, "queue_full")]
    assert arrive(penstock, request(10, cost=100, tenant="x")) == [("reject", 6, "queue_full")]


def test_a_request_above_the_whole_token_limit_keeps_the_place_that_it_got() -> None:
    penstock = of_tokens(600.0)
    arrive(penstock, request(0), request(1, cost=5000, tenant="huge"))

    assert arrive(penstock, request(2, cost=1, tenant="polite")) == [("reject", 2, "queue_full")]


def test_what_a_provider_has_worked_on_is_the_last_to_give_way() -> None:
    penstock = scheduler(queue_limit=3)
    arrive(penstock, *(request(i, tenant="flood") for i in range(4)))
    penstock.handle(Throttled(0, RefusalCause.OVERLOAD, 60.0, 0.5), now=1.0)

    assert arrive(penstock, request(4, at=1.0, tenant="polite")) == [("reject", 3, "queue_full")]


def test_nobody_gives_way_to_a_request_that_is_shed() -> None:
    penstock = guarded(Bouncer(returns=0), queue_limit=3)
    arrive(penstock, *(request(i, tenant="flood") for i in range(4)))

    assert arrive(penstock, request(4, cost=DEAR_TOKENS, tenant="polite")) == [
        ("reject", 4, "shed")
    ]


def test_without_turns_a_full_queue_refuses_whoever_comes() -> None:
    penstock = scheduler(queue_limit=3, tenant_turns=False)
    arrive(penstock, *(request(i, tenant="flood") for i in range(4)))

    assert arrive(penstock, request(4, tenant="polite")) == [("reject", 4, "queue_full")]


@given(
    story=st.lists(
        st.tuples(st.sampled_from("abcd"), st.integers(1, 300), st.booleans()), max_size=80
    ),
    limit=st.integers(100, 2000),
)
def test_nobody_with_an_equal_part_of_the_tokens_or_less_is_refused(
    story: list[tuple[str, int, bool]], limit: int
) -> None:
    penstock = of_tokens(limit)
    waiting: dict[int, tuple[str, int]] = {}
    flying: list[int] = []
    for id_, (tenant, cost, replies) in enumerate(story):
        waiting[id_] = tenant, min(cost, limit)  # more than all enters an empty queue only
        now = float(id_)
        one = request(id_, at=now, tenant=tenant, cost=waiting[id_][1])
        events: list[Event] = [Arrived(one)]
        if replies and flying:
            events.append(Completed(flying.pop(), 100))
        for event in events:
            for action in decisions(penstock.handle(event, now=now)):
                if isinstance(action, Reject):
                    whose = action.request.tenant
                    has = sum(tokens for each, tokens in waiting.values() if each == whose)
                    assert has * len({each for each, _ in waiting.values()}) > limit
                else:
                    flying.append(action.request.id)
                del waiting[action.request.id]
        assert sum(tokens for _, tokens in waiting.values()) <= limit


@given(
    story=st.lists(st.tuples(st.sampled_from("abcd"), st.booleans(), st.booleans()), max_size=80),
    limit=st.integers(1, 12),
    of_class=st.booleans(),
)
def test_nobody_with_an_equal_part_of_a_full_queue_or_less_is_refused(
    story: list[tuple[str, bool, bool]], limit: int, of_class: bool
) -> None:
    batch = replace(BATCH, queue_limit=limit if of_class else 1000)
    penstock = scheduler(queue_limit=1000 if of_class else limit, classes=(INTERACTIVE, batch))
    waiting: dict[int, str] = {}
    flying: list[int] = []
    for id_, (tenant, interactive, replies) in enumerate(story):
        name = "interactive" if interactive and not of_class else "batch"
        waiting[id_] = tenant
        now = float(id_)
        events: list[Event] = [Arrived(request(id_, name, at=now, tenant=tenant))]
        if replies and flying:
            events.append(Completed(flying.pop(), 100))
        for event in events:
            for action in decisions(penstock.handle(event, now=now)):
                if isinstance(action, Reject):
                    has = sum(each == action.request.tenant for each in waiting.values())
                    assert has * len(set(waiting.values())) > limit
                else:
                    flying.append(action.request.id)
                del waiting[action.request.id]
        assert len(waiting) <= limit


costs = st.lists(st.floats(1.0, 2000.0), min_size=12, max_size=12)


@given(ours=costs, theirs=costs, real=st.one_of(st.none(), st.floats(1.0, 2000.0)))
def test_two_tenants_that_both_wait_differ_by_the_dearest_request_of_each(
    ours: list[float], theirs: list[float], real: float | None
) -> None:
    penstock = scheduler()
    columns = {"ours": [float(int(c)) for c in ours], "theirs": [float(int(c)) for c in theirs]}
    arrive(penstock, request(99, cost=1.0, tenant="third"))
    ids = itertools.count()
    for pair in zip(*columns.values(), strict=True):
        for tenant, cost in zip(columns, pair, strict=True):
            arrive(penstock, request(next(ids), cost=cost, tenant=tenant))
    left = dict.fromkeys(columns, 12)
    served = dict.fromkeys(columns, 0.0)
    dearest = sum(max(each) for each in columns.values()) + 2 * (real or 0.0)
    flying, now = 99, 0.0
    while min(left.values()) > 0:
        now += 1.0
        cost = (
            1 if flying == 99 else int(real or columns[("ours", "theirs")[flying % 2]][flying // 2])
        )
        (action,) = penstock.handle(Completed(flying, cost), now=now)
        assert isinstance(action, Dispatch)
        if flying != 99:
            served[("ours", "theirs")[flying % 2]] += cost
        flying = action.request.id
        left[action.request.tenant] -= 1
        assert abs(served["ours"] - served["theirs"]) <= dearest


@pytest.mark.parametrize("tenants", [2, 4096])
def test_a_decision_costs_no_more_among_many_tenants(tenants: int) -> None:
    def mean(n: int) -> float:
        penstock = scheduler(queue_limit=10**6)
        arrive(penstock, *(request(i, tenant=f"t{i % n}") for i in range(8192)))
        order = [0]

        def next_one() -> None:
            order.extend(sent(penstock.handle(Completed(order[-1], 100), now=float(len(order)))))

        return sum(cost_of(next_one) for _ in range(50)) / 50

    # Nothing walks over the tenants: a few heap steps more are all that thousands cost.
    assert mean(tenants) <= mean(1) + 40


@pytest.mark.parametrize("tenants", [2, 4096])
@pytest.mark.parametrize("by_tokens", [False, True])
def test_giving_way_costs_no_more_among_many_tenants(tenants: int, by_tokens: bool) -> None:
    def mean(n: int) -> float:
        penstock = of_tokens(819_200.0) if by_tokens else scheduler(queue_limit=8192)
        arrive(penstock, *(request(i, tenant=f"t{i % n}") for i in range(8193)))
        ids = itertools.count(10_000)

        def one_more() -> None:
            id_ = next(ids)
            (word,) = arrive(penstock, request(id_, tenant=f"new{id_}"))
            assert word[0] == "reject"

        return sum(cost_of(one_more) for _ in range(50)) / 50

    assert mean(tenants) <= mean(1) + 40
