"""What a policy raises ends a simulation: its figures would say nothing."""

import pytest

from penstock.policies.ordering.feasible_set import FeasibleSet
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one


def test_a_policy_that_raises_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: FeasibleSet, ticket: object, *, now: float) -> None:
        raise ZeroDivisionError("a policy's bug")

    monkeypatch.setattr(FeasibleSet, "take", broken)
    scenario = read_scenario(
        {
            "seeds": [1],
            "provider": {"model": "slots", "slots": 2},
            "workload": {"requests": 5, "rate_per_s": 1.0},
            "policies": {"it": {}},
        }
    )

    with pytest.raises(ZeroDivisionError, match="a policy's bug"):
        run_one(scenario, "it", 1)
