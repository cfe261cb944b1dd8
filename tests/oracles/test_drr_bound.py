"""Deficit round robin against the fairness bound that was published with it.

Shreedhar & Varghese, IEEE/ACM ToN 4(3), 1996, theorem 2: over any interval in which two flows are
backlogged, |sent_i / f_i - sent_j / f_j| <= Q + Max / f_i + Max / f_j. In our units, with Q the
quantum of the smallest weight and f_i = w_i / w_min, that is quantum + Max / w_i + Max / w_j.
"""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import Arrived, Completed, Dispatch
from penstock.core.model import TrafficClass
from penstock.core.settings import PolicySpec
from tests.core.story import request, scheduler

SLACK = 1e-6


def served(
    kind: str,
    weights: list[float],
    costs: list[list[float]],
    quantum: float,
    *,
    real: float | None = None,
) -> list[tuple[str, float]]:
    """Return (class, cost) in the order of service while all classes stay backlogged.

    `real`: what every reply really costs, if not what was predicted.
    """
    classes = tuple(TrafficClass(f"c{i}", weight) for i, weight in enumerate(weights))
    spec = PolicySpec(kind, {"quantum_tokens": quantum})
    penstock = scheduler(window=1, classes=classes, allocation=spec)
    requests = [
        request(len(costs) * n + i, f"c{i}", cost=cost)
        for i, column in enumerate(costs)
        for n, cost in enumerate(column)
    ]
    left = {f"c{i}": len(column) for i, column in enumerate(costs)}
    actions = penstock.handle(Arrived(request(10**6, "c0", cost=1.0)), now=0.0)
    for one in requests:
        penstock.handle(Arrived(one), now=0.0)
    order: list[tuple[str, float]] = []
    now = 0.0
    while min(left.values()) > 0:  # as long as everybody waits
        (action,) = actions
        assert isinstance(action, Dispatch)
        if action.request.id != 10**6:
            name, cost = action.request.traffic_class, action.request.cost_tokens
            left[name] -= 1
            order.append((name, cost if real is None else real))
        now += 1.0
        tokens = action.request.cost_tokens if real is None else real
        actions = penstock.handle(Completed(action.request.id, int(tokens)), now=now)
    return order


def worst_gap(
    order: list[tuple[str, float]], first: str, w1: float, other: str, w2: float
) -> float:
    """Return the largest |sent_i / w_i - sent_j / w_j| over all intervals."""
    steps = [
        cost / w1 if name == first else -cost / w2 if name == other else 0.0 for name, cost in order
    ]
    sums = list(itertools.accumulate(steps, initial=0.0))
    return max(sums) - min(sums)


@st.composite
def contests(draw: st.DrawFn) -> tuple[list[float], list[list[float]], float]:
    """Weights, costs by class, quantum."""
    n = draw(st.integers(2, 3))
    weights = draw(st.lists(st.sampled_from([0.5, 0.7, 1.0, 4.0, 9.0]), min_size=n, max_size=n))
    cost = st.integers(1, 1000).map(float)
    costs = [draw(st.lists(cost, min_size=2, max_size=25)) for _ in range(n)]
    return weights, costs, draw(st.sampled_from([1.0, 64.0, 256.0, 2000.0]))


@given(contests())
def test_drr_shares_tokens_within_the_published_bound(
    contest: tuple[list[float], list[list[float]], float],
) -> None:
    weights, costs, quantum = contest
    order = served("drr", weights, costs, quantum)
    most = max(itertools.chain.from_iterable(costs))

    for i, j in itertools.combinations(range(len(weights)), 2):
        gap = worst_gap(order, f"c{i}", weights[i], f"c{j}", weights[j])
        assert gap <= quantum + most / weights[i] + most / weights[j] + SLACK


@given(contests())
def test_adaptive_drr_when_calm_is_within_one_quantum_of_that_bound(
    contest: tuple[list[float], list[list[float]], float],
) -> None:
    """It serves the most urgent first instead of going round, which costs one quantum."""
    weights, costs, quantum = contest
    order = served("adaptive_drr", weights, costs, quantum)
    most = max(itertools.chain.from_iterable(costs))
    # Equal service times (the fit of an untaught upstream is flat): weights do not move.

    for i, j in itertools.combinations(range(len(weights)), 2):
        gap = worst_gap(order, f"c{i}", weights[i], f"c{j}", weights[j])
        assert gap <= 2 * quantum + most / weights[i] + most / weights[j] + SLACK


@given(st.sampled_from(["drr", "adaptive_drr"]), st.integers(1, 400), st.integers(1, 400))
def test_shares_follow_the_real_usage_not_the_estimate(kind: str, low: int, real: int) -> None:
    estimate = float(low)
    costs = [[estimate] * 60, [estimate] * 60]
    order = served(kind, [3.0, 1.0], costs, 100.0, real=float(real))
    most = max(float(real), estimate) + abs(real - estimate)

    assert worst_gap(order, "c0", 3.0, "c1", 1.0) <= 200.0 + most / 3.0 + most + SLACK


def test_long_run_shares_are_the_weights() -> None:
    order = served("drr", [4.0, 1.0], [[50.0] * 800, [200.0] * 60], 100.0)
    tokens = {name: sum(c for n, c in order if n == name) for name in ("c0", "c1")}

    assert abs(tokens["c0"] / tokens["c1"] - 4.0) < 0.1
