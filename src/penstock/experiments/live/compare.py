"""The same scenario live and simulated, side by side."""

import asyncio
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from penstock.experiments.job import SimulationJob, Table
from penstock.experiments.measure import outcome_of_records
from penstock.experiments.outcome import RunOutcome
from penstock.experiments.tables import SHOWN, Column, number
from penstock.experiments.tables import ResultTable as Shown
from penstock.sim.scenario import read_scenario

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True)
class Pair:
    """One policy's two runs."""

    policy: str
    live: RunOutcome
    simulated: RunOutcome

    def agree(self, limits: Table) -> bool:
        """Return whether the two are as near each other as live.toml asks."""
        satisfied, p95_s = "deadline_satisfaction", "short_p95_s"
        live, simulated = self.live.figures, self.simulated.figures
        lives_s, simulated_s = live[p95_s], simulated[p95_s]
        if lives_s is None or simulated_s is None:
            return False
        apart = abs((live[satisfied] or 0.0) - (simulated[satisfied] or 0.0))
        allowed_s = max(
            limits["short_p95_difference_s"], limits["short_p95_difference_share"] * simulated_s
        )
        # A thousandth of slack: 2 points of 200 requests are 4 requests, not 3.99.
        return bool(
            apart <= limits["deadline_difference_max"] + 1e-9
            and abs(lives_s - simulated_s) <= allowed_s
        )


def run_live(settings: Table, policies: Sequence[str], progress: Progress) -> list[RunOutcome]:
    """Run policies of live.toml in real time, each through a sidecar and a mock of its own.

    All at once: the load of one is nothing to a machine, and the time it takes is the scenario's.
    """

    async def together() -> list[RunOutcome]:
        return list(
            await asyncio.gather(*(_live(settings, policy, progress) for policy in policies))
        )

    return asyncio.run(together())


async def _live(settings: Table, policy: str, progress: Progress) -> RunOutcome:
    from penstock.experiments.live.client import send_workload
    from penstock.experiments.live.processes import sidecar_and_mock

    job = live_job(settings, policy)
    scenario = read_scenario(job.scenario)
    workload = scenario.workload.build(job.seed, scenario.classes)
    with tempfile.TemporaryDirectory(prefix="penstock-live-") as folder:
        async with sidecar_and_mock(job.scenario["provider"], job.policy, Path(folder)) as urls:
            label = f"live: {policy}"
            answered = await send_workload(
                urls.sidecar, workload, lambda done, total: progress(label, done, total)
            )
    return outcome_of_records([each.record for each in answered])


def live_job(settings: Table, policy: str) -> SimulationJob:
    """Return the job that a policy of live.toml simulates."""
    return SimulationJob(settings["scenario"], settings["policies"][policy], int(settings["seed"]))


def live_table(pairs: tuple[Pair, ...], limits: Table) -> Shown:
    """Return both runs of each policy, one under the other."""
    rows, cells, groups = [], [], []
    for pair in pairs:
        agree = pair.agree(limits)
        for kind, outcome in (("live", pair.live), ("simulated", pair.simulated)):
            rows.append(
                {"policy": pair.policy, "run": kind, "agree": agree} | dict(outcome.figures)
            )
            shown = [number(outcome.figures[name] or 0.0) for name, _ in SHOWN]
            cells.append((kind, *shown, "yes" if agree else "NO"))
            groups.append(f"{pair.policy}")
    columns = (
        Column("run", "", text=True),
        *(Column(name, heading) for name, heading in SHOWN),
        Column("agree", "agree", text=True),
    )
    return Shown("live", columns, tuple(rows), tuple(cells), tuple(groups))
