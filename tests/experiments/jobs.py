"""A job quick enough for tests; apart, because Ray's environment has no scipy."""

from typing import Any

from penstock.experiments.measure import SimulationJob

PROVIDER = {"model": "slots", "slots": 4, "tokens_per_s": 200.0, "ttft_s": 0.1}
WORKLOAD = {"requests": 40, "rate_per_s": 3.0}


def job(seed: int = 1, **policy: Any) -> SimulationJob:
    return SimulationJob({"provider": PROVIDER, "workload": WORKLOAD}, policy, seed)
