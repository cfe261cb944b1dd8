"""Whom each overload policy defers and sheds; their numbers are read, not repeated."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.model import BUCKET_UPPER_TOKENS
from penstock.core.policy import Admit, DeferFor, OverloadPolicy, Shed
from penstock.core.settings import PolicySpec
from penstock.core.ticket import Ticket, ticket_of
from penstock.policies.registry import POLICIES, make
from tests.core.story import arrive, overloaded, request, scheduler

RUNGS = [name for name, _ in BUCKET_UPPER_TOKENS]
LADDERS = ["cost_ladder", "reverse_ladder", "uniform_harsh", "uniform_mild"]


def policy(kind: str, **options: object) -> OverloadPolicy:
    made: OverloadPolicy = make("overload", PolicySpec(kind, options))  # type: ignore[arg-type]
    return made


def ticket(rung: str, *, deferrals: int = 0, slack_s: float = math.inf) -> Ticket:
    cost = {"short": 10.0, "medium": 100.0, "long": 1000.0, "xlong": 5000.0}[rung]
    one = ticket_of(request(1, cost=cost, deadline=slack_s), 0.0, 0.0)
    one.deferrals = deferrals
    return one


def sheds_from(judge: OverloadPolicy, rung: str) -> float:
    """Return the lowest severity, in percent, that sheds a request that was deferred enough."""
    for percent in range(101):
        verdict = judge.judge(ticket(rung, deferrals=99), overloaded(percent / 100), now=0.0)
        if isinstance(verdict, Shed):
            return percent
    return math.inf


def defers_from(judge: OverloadPolicy, rung: str) -> float:
    for percent in range(101):
        verdict = judge.judge(ticket(rung), overloaded(percent / 100), now=0.0)
        if isinstance(verdict, DeferFor):
            return percent
    return math.inf


@given(st.floats(0, 1), st.integers(0, 9), st.floats(-100, 1000))
def test_the_cost_ladder_never_defers_or_sheds_its_cheapest_rung(
    severity: float, deferrals: int, slack_s: float
) -> None:
    short = ticket("short", deferrals=deferrals, slack_s=slack_s)

    assert policy("cost_ladder").judge(short, overloaded(severity), now=0.0) == Admit()


def test_on_the_cost_ladder_the_dearer_is_deferred_and_shed_earlier() -> None:
    ladder = policy("cost_ladder")
    for facts in (
        [defers_from(ladder, rung) for rung in RUNGS],
        [sheds_from(ladder, rung) for rung in RUNGS],
    ):
        assert facts == sorted(facts, reverse=True)
        assert facts[0] == math.inf
        assert facts[-1] < facts[-2]


def test_the_reverse_ladder_is_the_cost_ladder_upside_down() -> None:
    ladder, mirror = policy("cost_ladder"), policy("reverse_ladder")

    assert [sheds_from(mirror, rung) for rung in RUNGS] == [
        sheds_from(ladder, rung) for rung in reversed(RUNGS)
    ]
    assert [defers_from(mirror, rung) for rung in RUNGS] == [
        defers_from(ladder, rung) for rung in reversed(RUNGS)
    ]


@pytest.mark.parametrize("kind", ["uniform_mild", "uniform_harsh"])
def test_the_uniform_policies_look_at_no_cost(kind: str) -> None:
    judge = policy(kind)

    assert len({sheds_from(judge, rung) for rung in RUNGS}) == 1
    assert len({defers_from(judge, rung) for rung in RUNGS}) == 1


def test_harsh_comes_before_mild() -> None:
    harsh, mild = policy("uniform_harsh"), policy("uniform_mild")

    assert sheds_from(harsh, "long") < sheds_from(mild, "long") < math.inf
    assert defers_from(harsh, "long") < defers_from(mild, "long")


@pytest.mark.parametrize("kind", LADDERS)
def test_calm_every_policy_admits_everything(kind: str) -> None:
    for rung in RUNGS:
        assert policy(kind).judge(ticket(rung), overloaded(0.0), now=0.0) == Admit()


@pytest.mark.parametrize("kind", LADDERS)
def test_thresholds_and_returns_are_options(kind: str) -> None:
    judge = policy(kind, defer_at={"short": 0.2}, shed_at={"short": 0.3}, returns=1)
    hot = overloaded(0.5)

    assert isinstance(judge.judge(ticket("short"), hot, now=0.0), DeferFor)
    assert isinstance(judge.judge(ticket("short", deferrals=1), hot, now=0.0), Shed)
    assert judge.judge(ticket("xlong"), hot, now=0.0) == Admit()


def test_always_admit_admits_always() -> None:
    judge = policy("always_admit")

    assert judge.judge(ticket("xlong", slack_s=-5.0), overloaded(1.0), now=0.0) == Admit()


def test_through_the_scheduler_the_dear_are_sent_back_and_the_cheap_are_not() -> None:
    ladder = PolicySpec(
        "cost_ladder", {"defer_at": {"xlong": 0.0}, "shed_at": {"xlong": 0.0}, "returns": 0}
    )
    penstock = scheduler(overload=ladder)
    arrive(penstock, request(0), request(1))  # of 1 s each: one flies, one waits

    assert arrive(
        penstock,
        request(2, cost=5000, deadline=9.0),  # on time behind all that waits: no overload
        request(3, cost=10, deadline=1.5),
        request(4, cost=5000, deadline=1.5),
    ) == [("reject", 4, "shed")]


def test_every_policy_of_the_layer_is_looked_at_here() -> None:
    assert sorted(POLICIES["overload"]) == sorted([*LADDERS, "always_admit"])
