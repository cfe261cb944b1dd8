"""Simulation and asyncio take the same actions at the same times, to the last bit of every Why."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.events import Action, Event, Reject
from penstock.policies.registry import build_scheduler
from penstock.sim.engine import Engine, Habits
from penstock.sim.providers.registry import build_provider
from penstock.sim.scenario import read_scenario, settings_of
from tests.core.story import decisions
from tests.equivalence.live import Step, run_live
from tests.virtual_loop import run_virtual

SCENARIO: dict[str, Any] = {
    "seeds": [1],
    "provider": {"model": "slots"},
    "workload": {
        "requests": 60,
        "rate_per_s": 4.0,
        "mix": {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1},
        "deadline_s": {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0},
    },
    "policies": {"default": {}},
}

providers = st.one_of(
    st.builds(
        lambda slots, beta: {"model": "slots", "slots": slots, "beta": beta},
        st.integers(2, 12),
        st.sampled_from([0.0, 0.05]),
    ),
    st.builds(lambda c: {"model": "shared", "capacity": c}, st.integers(2, 12)),
    st.builds(lambda c: {"model": "thrash", "capacity": c}, st.integers(2, 12)),
    st.builds(lambda c: {"model": "linear", "capacity": c}, st.integers(2, 12)),
    st.builds(
        lambda limit: {
            "model": "rate_limited",
            "inner": {"model": "slots", "slots": 8},
            "rpm": limit,
        },
        st.integers(30, 300),
    ),
)
stacks = st.fixed_dictionaries(
    {},
    optional={
        "allocation": st.sampled_from(
            ["adaptive_drr", "drr", "fair_queuing", "short_priority", "quota_tiered", "fifo"]
        ),
        "ordering": st.sampled_from(["feasible_set", "edf", "shortest_first", "fifo"]),
        "capacity": st.builds(lambda w: {"kind": "fixed", "window": w}, st.integers(1, 12)),
        "overload": st.sampled_from(["cost_ladder", "uniform_harsh", "always_admit"]),
    },
)


def both(
    provider: dict[str, Any], policy: dict[str, Any], rate_per_s: float, seed: int, stream: bool
) -> tuple[list[Step], list[Step]]:
    document = {
        **SCENARIO,
        "provider": provider,
        "policies": {"p": policy},
        "workload": {**SCENARIO["workload"], "rate_per_s": rate_per_s},
    }
    scenario = read_scenario(document, folder=Path())
    workload = scenario.workload.build(seed, scenario.classes)
    plan = scenario.policies["p"]

    simulated: list[Step] = []

    def watch(now: float, event: Event, actions: list[Action]) -> None:
        simulated.append((now, event, list(actions)))

    Engine(
        build_scheduler(settings_of(plan, workload.classes)),
        {"default": build_provider(provider, seed=seed)},
        habits=Habits(stream=stream),
        seed=seed,
        watch=watch,
    ).run(workload)
    lived = run_virtual(
        run_live(
            build_scheduler(settings_of(plan, workload.classes)),
            build_provider(provider, seed=seed),
            workload,
            seed=seed,
            stream=stream,
        )
    )
    return simulated, lived


@settings(max_examples=60, deadline=None)
@given(providers, stacks, st.floats(0.5, 12.0), st.integers(0, 10_000), st.booleans())
def test_engine_and_asyncio_decide_the_same(
    provider: dict[str, Any], policy: dict[str, Any], rate_per_s: float, seed: int, stream: bool
) -> None:
    simulated, lived = both(provider, policy, rate_per_s, seed, stream)
    for ours, theirs in zip(lived, simulated, strict=False):
        assert ours == theirs
    assert len(lived) == len(simulated)


@pytest.mark.parametrize("stream", [False, True])
def test_the_comparison_sees_queues_and_refusals(stream: bool) -> None:
    """The law above would be empty if nothing ever waited or was refused."""
    policy = {"overload": "uniform_harsh", "capacity": {"kind": "fixed", "window": 2}}
    simulated, lived = both({"model": "slots", "slots": 2}, policy, 12.0, 3, stream)
    assert lived == simulated
    actions = [action for _, _, answers in lived for action in answers]
    assert any(isinstance(action, Reject) for action in actions)
    assert max(action.why.waited_s for action in decisions(actions)) > 1.0
