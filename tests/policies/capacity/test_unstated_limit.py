"""Behind limits that no header states: few refusals, calls in time, the limit used."""

from dataclasses import dataclass
from typing import Any

import pytest

from penstock.metrics import measure
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one

MIX = {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1}
REQUESTS, TOKENS = {"rpm": 600.0, "burst_s": 1.0}, {"tpm": 90_000.0, "burst_s": 10.0}


@dataclass(frozen=True)
class Run:
    """What a run under a limit came to; `goodput_per_s` is in requests."""

    attempts: float
    in_time: float
    goodput_per_s: float


def run(
    limits: dict[str, float],
    dialect: str,
    *,
    rate_per_s: float,
    requests: int = 600,
    seed: int = 1,
    refusal_s: float = 0.0,
) -> Run:
    document: dict[str, Any] = {
        "seeds": [seed],
        "provider": {
            "model": "slots",
            "slots": 256,
            "tokens_per_s": 64_000.0,
            "ttft_s": 0.05,
            "limits": {**limits, "dialect": dialect},
        },
        "workload": {
            "requests": requests,
            "rate_per_s": rate_per_s,
            "mix": MIX,
            "refusal_s": refusal_s,
            "deadline_s": dict.fromkeys(MIX, 60.0),
        },
        "policies": {"it": {}},
    }
    ran = run_one(read_scenario(document), "it", seed)
    told = measure(ran.records)
    assert told.completion_rate == 1.0  # nothing was given back to its caller
    assert told.makespan_s is not None
    return Run(ran.attempts / requests, told.deadline_satisfaction, requests / told.makespan_s)


@pytest.mark.parametrize("seed", [1, 2])
@pytest.mark.parametrize("load", [0.8, 1.2, 1.5])
def test_a_hidden_request_limit_serves_as_well_as_a_stated_one(load: float, seed: int) -> None:
    hidden, stated = (
        run(REQUESTS, dialect, rate_per_s=10.0 * load, seed=seed) for dialect in ("plain", "openai")
    )

    assert hidden.attempts <= 1.1
    assert hidden.in_time >= 0.97 * stated.in_time
    assert hidden.goodput_per_s >= 0.9 * min(10.0, stated.goodput_per_s)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_hidden_token_limit_is_found_too(seed: int) -> None:
    hidden, stated = (  # 1.2 of what it allows
        run(TOKENS, dialect, rate_per_s=4.5, seed=seed) for dialect in ("plain", "openai")
    )

    assert hidden.attempts <= 1.1
    assert hidden.in_time >= 0.97 * stated.in_time
    assert hidden.goodput_per_s >= 0.9 * stated.goodput_per_s


def test_an_attempt_in_vain_is_rare_from_the_first_refusal_on() -> None:
    few = run(REQUESTS, "plain", requests=180, rate_per_s=15.0, seed=1)

    assert few.attempts <= 1.1
    assert few.in_time == 1.0
    assert few.goodput_per_s >= 9.5


@pytest.mark.parametrize("refusal_s", [0.02, 0.2])
@pytest.mark.parametrize("load", [1.2, 1.5, 3.0])
def test_refusals_that_come_late_and_out_of_order_tell_as_much(
    load: float, refusal_s: float
) -> None:
    """What is counted as passed and refused later had been no proof of anything."""
    for seed in range(6):
        found = run(REQUESTS, "plain", rate_per_s=10.0 * load, seed=seed, refusal_s=refusal_s)

        assert found.attempts <= 1.1, seed
        assert found.goodput_per_s >= 0.9 * 10.0, seed


def test_a_stated_limit_that_holds_one_request_at_a_time_is_never_provoked() -> None:
    stated = run({"rpm": 60.0, "burst_s": 1.0}, "openai", rate_per_s=0.8, requests=150)

    assert stated.attempts == 1.0
    assert stated.in_time >= 0.99


@pytest.mark.parametrize("seed", [1, 2])
def test_a_bucket_of_one_request_behind_bare_refusals_is_told_from_requests_always_refused(
    seed: int,
) -> None:
    """What is refused passes later: refusals are not about it alone, though few pass between."""
    limits = {"rpm": 60.0, "burst_s": 1.0, "silent": True}
    hidden = run(limits, "plain", rate_per_s=0.8, requests=300, seed=seed)

    assert hidden.attempts <= 1.3
    assert hidden.in_time >= 0.99
