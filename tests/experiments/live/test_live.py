import asyncio
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from penstock.experiments.live import (
    LiveError,
    Pair,
    live_job,
    live_table,
    run_live,
    sidecar_and_mock,
    sidecar_config,
)
from penstock.experiments.measure import run_job
from penstock.experiments.paper import paper_directory, read_paper
from penstock.proxy.config import loads
from tests.experiments.specimens import outcome

LIVE = read_paper(paper_directory()).special["live"]


def brief(**provider: Any) -> dict[str, Any]:
    """live.toml with a workload that lasts some two seconds."""
    scenario = {
        "provider": {"model": "slots", "slots": 4, "tokens_per_s": 2000.0, "ttft_s": 0.05},
        "workload": {"requests": 40, "rate_per_s": 20.0, "mix": {"short": 0.7, "medium": 0.3}},
    }
    return {**LIVE, "scenario": {**scenario, **provider}, "policies": {"default": {}}}


@pytest.mark.slow
def test_a_workload_goes_through_a_real_sidecar_and_every_request_comes_back() -> None:
    told: list[tuple[str, int, int]] = []

    (live,) = run_live(brief(), ["default"], lambda *said: told.append(said))

    simulated = run_job(live_job(brief(), "default"))
    assert live.submitted == simulated.submitted
    assert live.figures["completion_rate"] == 1.0
    assert told[-1] == ("live: default", 40, 40)


def test_the_sidecar_is_told_the_classes_and_the_stack_of_the_scenario() -> None:
    loaded = loads(tomlkit.dumps(sidecar_config("http://127.0.0.1:9", LIVE["policies"]["fifo"])))

    assert loaded.settings.stack.allocation.kind == "fifo"
    assert loaded.settings.stack.capacity.options == {"window": 8}
    assert [c.name for c in loaded.settings.classes] == ["interactive", "heavy"]
    assert loaded.config.anonymous.may_state_tokens  # what the scenario's callers know
    assert not loaded.config.estimates.table


@pytest.mark.slow
def test_a_mock_that_does_not_start_is_said_with_its_own_words(tmp_path: Path) -> None:
    async def start() -> None:
        async with sidecar_and_mock({"model": "slots", "slots": 0}, {}, tmp_path):
            pass

    with pytest.raises(LiveError, match=r"penstock mock did not start: .*provider\.slots = 0"):
        asyncio.run(start())


@pytest.mark.parametrize(
    ("live", "agrees"),
    [
        ({"deadlines": 0.92, "short_p95_s": 1.14}, True),
        ({"deadlines": 0.88, "short_p95_s": 0.86}, True),
        ({"deadlines": 0.93, "short_p95_s": 1.0}, False),
        ({"deadlines": 0.90, "short_p95_s": 1.16}, False),
    ],
)
def test_runs_agree_within_two_points_and_fifteen_per_cent(
    live: dict[str, Any], agrees: bool
) -> None:
    simulated = outcome(deadlines=0.90, short_p95_s=1.0)

    assert Pair("default", outcome(**live), simulated).agree(LIVE) is agrees


def test_where_latencies_are_small_fifty_milliseconds_are_allowed() -> None:
    simulated = outcome(short_p95_s=0.2)

    assert Pair("default", outcome(short_p95_s=0.249), simulated).agree(LIVE)
    assert not Pair("default", outcome(short_p95_s=0.251), simulated).agree(LIVE)


def test_the_table_shows_both_runs_of_a_policy() -> None:
    pair = Pair("default", outcome(short_p95_s=0.31), outcome(short_p95_s=0.30))

    table = live_table((pair,), LIVE)

    assert [(r["run"], r["short_p95_s"], r["agree"]) for r in table.rows] == [
        ("live", 0.31, True),
        ("simulated", 0.30, True),
    ]
