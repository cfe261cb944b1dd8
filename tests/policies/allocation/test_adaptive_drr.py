"""Adaptive DRR: deficits, weights that move with severity, and room for who comes next."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import Completed
from penstock.core.model import TrafficClass
from penstock.core.settings import PolicySpec
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket, ticket_of
from penstock.errors import ConfigError
from penstock.policies.allocation.adaptive_drr import AdaptiveDrr, poisson_quantile
from tests.core.story import arrive, is_at_rest, request, scheduler, sent
from tests.policies.allocation.contest import contest, letters

QUICK, HEAVY = TrafficClass("quick", 1.0), TrafficClass("heavy", 1.0)
CLASSES = (QUICK, HEAVY)


def ticket(name: str, id_: int, *, service_s: float, slack_s: float, cost: float = 100) -> Ticket:
    return ticket_of(
        request(id_, name, cost=cost, deadline=slack_s + service_s), service_s, service_s
    )


def sensed(*tickets: Ticket, window: float, severity: float = 0.0) -> Signals:
    """Return signals after these have arrived, at about ten a second, and wait."""
    signals = Signals(window=window, severity=severity)
    for one in tickets:
        signals.arrived(one, now=0.0)
        signals.queued(one)
    return signals


def heads(*tickets: Ticket) -> dict[str, Ticket]:
    return {one.request.traffic_class: one for one in tickets}


def serve(allocator: AdaptiveDrr, waiting: dict[str, Ticket], signals: Signals, n: int) -> str:
    order = []
    for _ in range(n):
        name = allocator.choose(waiting, signals, now=0.0)
        assert name is not None
        allocator.charge(name, waiting[name].cost_tokens)
        order.append(name)
    return letters(order)


def test_calm_tokens_are_shared_by_weight() -> None:
    quick = ticket("quick", 1, service_s=1.0, slack_s=5.0, cost=100)
    heavy = ticket("heavy", 2, service_s=10.0, slack_s=5.0, cost=1000)
    allocator = AdaptiveDrr(CLASSES, quantum_tokens=1000.0)

    order = serve(allocator, heads(quick, heavy), sensed(quick, heavy, window=1.0), 44)

    assert order.count("q") == 40  # ten cheap ones for each dear one


def test_overloaded_turns_are_shared_by_weight() -> None:
    quick = ticket("quick", 1, service_s=1.0, slack_s=5.0, cost=100)
    heavy = ticket("heavy", 2, service_s=10.0, slack_s=5.0, cost=1000)
    allocator = AdaptiveDrr(CLASSES, quantum_tokens=1000.0)
    signals = sensed(quick, heavy, window=1.0, severity=1.0)

    order = serve(allocator, heads(quick, heavy), signals, 202)

    assert order.count("q") in range(198, 202)  # its weight is ten times as large now


def test_among_those_that_can_pay_the_most_urgent_goes_first() -> None:
    quick = ticket("quick", 1, service_s=1.0, slack_s=9.0)
    heavy = ticket("heavy", 2, service_s=1.0, slack_s=5.0)
    allocator = AdaptiveDrr(CLASSES, quantum_tokens=100.0)

    assert serve(allocator, heads(quick, heavy), sensed(quick, heavy, window=1.0), 4) == "hqhq"


def test_equally_urgent_classes_go_in_their_configured_order() -> None:
    quick = ticket("quick", 1, service_s=1.0, slack_s=5.0)
    heavy = ticket("heavy", 2, service_s=1.0, slack_s=5.0)
    allocator = AdaptiveDrr(CLASSES, quantum_tokens=100.0)

    assert serve(allocator, heads(heavy, quick), sensed(heavy, quick, window=1.0), 4) == "qhqh"


def test_a_patient_class_leaves_room_for_an_urgent_one_that_is_not_there_yet() -> None:
    quick = ticket("quick", 1, service_s=1.0, slack_s=1.0)
    heavy = ticket("heavy", 2, service_s=9.0, slack_s=60.0)
    allocator = AdaptiveDrr(CLASSES, room_quantile=0.9, room_share=0.5)
    signals = sensed(quick, heavy, window=4.0)
    signals.unqueued(quick)  # it has come and gone: more of its kind will follow
    signals.occupied = 3

    assert allocator.choose(heads(heavy), signals, now=0.0) is None
    signals.occupied = 1
    assert allocator.choose(heads(heavy), signals, now=0.0) == "heavy"


def test_an_urgent_class_leaves_no_room_for_a_patient_one() -> None:
    quick = ticket("quick", 1, service_s=1.0, slack_s=1.0)
    heavy = ticket("heavy", 2, service_s=9.0, slack_s=60.0)
    allocator = AdaptiveDrr(CLASSES, room_quantile=0.9, room_share=0.5)
    signals = sensed(quick, heavy, window=4.0)
    signals.occupied = 3

    assert allocator.choose(heads(quick), signals, now=0.0) == "quick"


def test_room_is_given_back_when_the_urgent_class_stays_away() -> None:
    quick = ticket("quick", 1, service_s=1.0, slack_s=1.0)
    heavy = ticket("heavy", 2, service_s=9.0, slack_s=60.0)
    allocator = AdaptiveDrr(CLASSES, room_quantile=0.9, room_share=0.5)
    signals = sensed(quick, heavy, window=4.0)
    signals.unqueued(quick)
    signals.occupied = 3
    assert allocator.choose(heads(heavy), signals, now=0.0) is None

    assert allocator.choose(heads(heavy), signals, now=600.0) == "heavy"


@pytest.mark.parametrize("window", [1.0, 1.9, math.inf])
def test_of_one_place_or_of_endless_ones_none_is_kept(window: float) -> None:
    quick = ticket("quick", 1, service_s=1.0, slack_s=1.0)
    heavy = ticket("heavy", 2, service_s=9.0, slack_s=60.0)
    signals = sensed(quick, heavy, window=window)

    assert AdaptiveDrr(CLASSES).choose(heads(heavy), signals, now=0.0) == "heavy"


def test_an_empty_lane_has_room_for_anybody() -> None:
    quick = ticket("quick", 1, service_s=1.0, slack_s=1.0)
    heavy = ticket("heavy", 2, service_s=9.0, slack_s=60.0)
    allocator = AdaptiveDrr(CLASSES, room_quantile=0.999, room_share=0.999)
    signals = sensed(quick, heavy, *[quick] * 0, window=2.0)

    assert allocator.choose(heads(heavy), signals, now=0.0) == "heavy"


def test_nobody_waits_nobody_is_chosen() -> None:
    assert AdaptiveDrr(CLASSES).choose({}, Signals(window=4.0), now=0.0) is None


def test_a_flood_of_urgent_requests_does_not_starve_the_patient_class() -> None:
    spec = PolicySpec("adaptive_drr", {"quantum_tokens": 256.0, "room_share": 0.5})
    penstock = scheduler(window=8, classes=CLASSES, allocation=spec, queue_limit=10**6)
    served, flying, id_ = {"quick": 0, "heavy": 0}, list[tuple[float, int]](), 0
    for tick in range(3000):  # 19 quick ones a second, each holding a place for a second, and
        now = tick / 10  # one heavy one a second: more than twice what the window can take
        actions = []
        while flying and flying[0][0] <= now:
            actions += penstock.handle(Completed(flying.pop(0)[1], 100), now=now)
        for _ in range(2):
            id_ += 1
            name, slack_s = ("heavy", 60.0) if id_ % 20 == 0 else ("quick", 5.0)
            one = request(id_, name, at=now, deadline=now + slack_s)
            arrive_now = arrive(penstock, one)
            flying += [(now + 1.0, int(str(word[1]))) for word in arrive_now]
        for dispatched in sent(actions):
            flying.append((now + 1.0, dispatched))
            served["heavy" if dispatched % 20 == 0 else "quick"] += 1

    # Equal weights and equal costs: heavy may have half of the 8 a second, and asks for one.
    assert served["heavy"] > 0.8 * 300


@given(st.floats(0.0, 30.0), st.floats(0.0, 0.999))
def test_the_poisson_quantile_is_the_smallest_number_that_suffices(mean: float, q: float) -> None:
    number = poisson_quantile(mean, q)

    def below(k: int) -> float:
        return sum(math.exp(-mean) * mean**i / math.factorial(i) for i in range(k + 1))

    assert below(number) >= q - 1e-9
    assert number == 0 or below(number - 1) < q + 1e-9


def test_for_large_means_the_normal_approximation_serves() -> None:
    assert poisson_quantile(100.0, 0.9) == math.ceil(100.0 + 1.2816 * 10.0)


@pytest.mark.parametrize(
    "options", [{"room_share": 1.0}, {"room_share": -0.1}, {"room_quantile": 1.0}]
)
def test_to_keep_all_room_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="must be a finite number >= 0 and < 1"):
        scheduler(allocation=PolicySpec("adaptive_drr", options))


def test_it_rests_with_clean_books() -> None:
    penstock, _ = contest("adaptive_drr", CLASSES, *[("quick", 30.0), ("heavy", 900.0)] * 5)

    assert is_at_rest(penstock)
