"""Allocators that look at turns, age or rank: fifo, fair_queuing, short_priority, quota_tiered."""

import pytest

from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.policy import Allocator
from penstock.core.settings import PolicySpec
from penstock.core.signals import Signals
from penstock.errors import ConfigError
from penstock.policies.registry import POLICIES, make
from tests.core.story import arrive, complete, request, scheduler
from tests.policies.allocation.contest import contest, letters

HEAVY = TrafficClass("heavy", 1.0, estimate=TokenEstimate(1000, 4000))
QUICK = TrafficClass("quick", 4.0, estimate=TokenEstimate(20, 60))
CLASSES = (HEAVY, QUICK)
MIXED = tuple((name, 100.0) for name in ("heavy", "heavy", "quick", "heavy", "quick", "quick"))


def test_fifo_is_one_plain_queue_across_classes() -> None:
    _, order = contest("fifo", CLASSES, *MIXED)

    assert letters(order) == "hhqhqq"


def test_fair_queuing_lets_classes_take_turns_whatever_they_cost() -> None:
    _, order = contest("fair_queuing", CLASSES, *MIXED)

    assert letters(order) == "qhqhqh"  # the place-holder was heavy's turn


def test_fair_queuing_passes_over_who_waits_for_nothing() -> None:
    _, order = contest("fair_queuing", CLASSES, ("heavy", 1), ("heavy", 1), ("heavy", 1))

    assert letters(order) == "hhh"


def test_short_priority_serves_the_class_with_the_shorter_estimate_first() -> None:
    _, order = contest("short_priority", CLASSES, *MIXED)

    assert letters(order) == "qqqhhh"


def test_quota_tiered_holds_a_class_to_its_quota_even_when_others_idle() -> None:
    spec = PolicySpec("quota_tiered", {"quotas": {"heavy": 0.5, "quick": 0.25}})
    penstock = scheduler(window=4, classes=CLASSES, allocation=spec)

    assert arrive(penstock, *(request(id_, "heavy") for id_ in (1, 2, 3))) == [
        ("dispatch", 1, "default"),
        ("dispatch", 2, "default"),
    ]
    assert arrive(penstock, request(4, "quick"), request(5, "quick")) == [
        ("dispatch", 4, "default")
    ]
    assert complete(penstock, 4, now=1.0) == [("dispatch", 5, "default")]
    assert complete(penstock, 1, now=2.0) == [("dispatch", 3, "default")]


def test_quota_tiered_gives_the_shortest_class_a_quarter_unless_told_otherwise() -> None:
    third = TrafficClass("nightly", 2.0, estimate=TokenEstimate(2000, 4000))
    penstock = scheduler(window=8, classes=(*CLASSES, third), allocation=PolicySpec("quota_tiered"))
    arrive(
        penstock,
        *(request(id_, name) for n, name in enumerate(("quick", "heavy", "nightly"))
          for id_ in range(10 * n, 10 * n + 8)),
    )  # fmt: skip
    lane = penstock.snapshot().lanes[0]

    assert {name: c.in_flight for name, c in lane.classes.items()} == {
        "quick": 2,
        "heavy": 2,
        "nightly": 4,
    }


def test_quota_tiered_leaves_every_class_at_least_one_place() -> None:
    spec = PolicySpec("quota_tiered", {"quotas": {"heavy": 0.01}})
    penstock = scheduler(window=2, classes=CLASSES, allocation=spec)

    assert arrive(penstock, request(1, "heavy")) == [("dispatch", 1, "default")]


def test_quota_tiered_with_one_class_or_without_a_window_divides_nothing() -> None:
    alone = scheduler(window=3, classes=(HEAVY,), allocation=PolicySpec("quota_tiered"))
    assert len(arrive(alone, *(request(id_, "heavy") for id_ in range(5)))) == 3

    windowless = scheduler(
        window=float("inf"), classes=CLASSES, allocation=PolicySpec("quota_tiered")
    )
    assert len(arrive(windowless, *(request(id_, "quick") for id_ in range(50)))) == 50


@pytest.mark.parametrize("quotas", [{"heavy": 0.0}, {"heavy": 1.5}, {"nobody": 0.5}])
def test_a_quota_that_is_none_is_refused(quotas: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=r"must be a share in \(0, 1\]"):
        scheduler(classes=CLASSES, allocation=PolicySpec("quota_tiered", {"quotas": quotas}))


@pytest.mark.parametrize("kind", ["fifo", "fair_queuing", "short_priority", "quota_tiered"])
def test_who_keeps_no_accounts_has_no_deficit(kind: str) -> None:
    penstock, _ = contest(kind, CLASSES, *MIXED)
    lane = penstock.snapshot().lanes[0]

    assert [c.deficit_tokens for c in lane.classes.values()] == [0.0, 0.0]


@pytest.mark.parametrize("kind", sorted(POLICIES["allocation"]))
def test_where_nobody_waits_nobody_is_chosen(kind: str) -> None:
    allocator: Allocator = make("allocation", PolicySpec(kind), CLASSES)

    assert allocator.choose({}, Signals(window=4.0), now=0.0) is None
