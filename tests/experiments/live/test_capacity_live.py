"""Hidden slots and limits, found over real sockets."""

import asyncio
from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from penstock.experiments.live import Answered, send_workload, sidecar_and_mock
from penstock.experiments.measure import SimulationJob, run_job
from penstock.sim.scenario import read_scenario

MIX = {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1}


async def played(
    folder: Path, provider: dict[str, Any], workload: dict[str, Any], policy: dict[str, Any]
) -> tuple[list[Answered], dict[str, Any]]:
    """Return the answers to a workload, and what the provider counted."""
    scenario = read_scenario({"provider": provider, "workload": {"mix": MIX, **workload}})
    async with sidecar_and_mock(provider, policy, folder) as urls:
        answered = await send_workload(
            urls.sidecar,
            scenario.workload.build(1, scenario.classes),
            lambda _done, _total: None,
            stream_one_in=3,
        )
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"{urls.mock}/mock/stats") as reply,
        ):
            return answered, await reply.json()


def _room(folder: Path, name: str) -> Path:
    (folder / name).mkdir()
    return folder / name


def test_a_window_that_must_be_found_does_nearly_as_well_as_one_that_is_known() -> None:
    scenario = {
        "provider": {"model": "slots", "slots": 8, "tokens_per_s": 400.0, "ttft_s": 0.075},
        "workload": {
            "requests": 200,
            "rate_per_s": 9.5,  # a quarter more than eight places can do
            "mix": MIX,
            "deadline_s": {"short": 0.5, "medium": 2.0, "long": 7.5, "xlong": 30.0},
        },
    }

    def figures(policy: dict[str, Any]) -> Mapping[str, float | None]:
        return run_job(SimulationJob(scenario, policy, 1)).figures

    ideal = figures({"capacity": {"kind": "fixed", "window": 8}})
    found = figures({})
    none = figures({"capacity": "unlimited"})

    met, short_p95_s = "deadline_satisfaction", "short_p95_s"
    # 0.97 and 1.3 are what the benchmark is judged by; 200 requests are a coarser measure.
    assert (found[met] or 0.0) >= 0.85 * (ideal[met] or 0.0)
    assert (found[met] or 0.0) > 1.1 * (none[met] or 0.0)
    assert (found[short_p95_s] or inf) < 0.5 * (none[short_p95_s] or 0.0)


@pytest.mark.slow
async def test_no_429_reaches_a_caller_whose_deadline_allows_it_to_wait(tmp_path: Path) -> None:
    slots = {"model": "slots", "slots": 16, "tokens_per_s": 4000.0, "ttft_s": 0.01}
    patient = dict.fromkeys(MIX, 60.0)
    load = {"requests": 180, "rate_per_s": 15.0, "deadline_s": patient}  # 10 a second may pass
    limits = {"rpm": 600, "burst_s": 1.0}

    runs = await asyncio.gather(
        *(
            played(
                _room(tmp_path, dialect),
                {**slots, "limits": {**limits, "dialect": dialect}},
                load,
                {},
            )
            for dialect in ("openai", "anthropic", "plain")  # the last states retry-after alone
        )
    )

    for answered, _ in runs:
        assert {each.status for each in answered} == {200}
    *stated, unstated = (sum(stats["refused"].values()) for _, stats in runs)
    assert max(stated) <= 0.1 * 180
    # Nothing else could have told of the limit; how few they are is asserted on the virtual clock.
    assert 0 < unstated < 0.5 * 180
