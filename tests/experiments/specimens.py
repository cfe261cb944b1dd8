"""A small study, quick enough for tests: two regimes, short workloads."""

import tomllib
from pathlib import Path
from typing import Any

from penstock.experiments.bench import Bench, Store
from penstock.experiments.measure import RunOutcome, SimulationJob
from penstock.experiments.paper import paper_directory
from penstock.experiments.pool import Batch, Here, Workers
from penstock.experiments.results import Cell
from penstock.sim.engine import Rejection
from tests.experiments.jobs import job


def bench(out: Path, workers: Workers | None = None) -> Bench:
    return Bench(Store(out), workers or Here())


def base() -> dict[str, Any]:
    with (paper_directory() / "base.toml").open("rb") as file:
        return tomllib.load(file)


def small_paper(folder: Path) -> Path:
    """Copy the specifications with a tenth of the requests and two seeds."""
    for source in paper_directory().glob("*.toml"):
        text = source.read_text("utf-8")
        text = text.replace("requests = 400", "requests = 40").replace("seeds = 5", "seeds = 2")
        text = text.replace("screen_requests = 240", "screen_requests = 24")
        (folder / source.name).write_text(text, "utf-8")
    return folder


def outcome(
    *,
    deadlines: float = 1.0,
    short_p95_s: float = 0.3,
    completion: float = 1.0,
    goodput: float = 4.0,
    p95_s: float = 5.0,
    short_p90_s: float = 0.25,
    long_p90_s: float = 4.0,
    shed: dict[str, int] | None = None,
    refusals: tuple[Rejection, ...] = (),
) -> RunOutcome:
    """A run with these figures; the rest is of no matter."""
    return RunOutcome(
        figures={
            "short_p95_s": short_p95_s,
            "short_p90_s": short_p90_s,
            "long_p90_s": long_p90_s,
            "p95_s": p95_s,
            "makespan_s": 100.0,
            "completion_rate": completion,
            "deadline_satisfaction": deadlines,
            "useful_goodput_per_s": goodput,
            "deferrals": 0,
        },
        shed={"short": 0, "medium": 0, "long": 0, "xlong": 0} | (shed or {}),
        submitted={"short": 100, "medium": 100, "long": 100, "xlong": 100},
        in_time={"short": 100, "medium": 100, "long": 100, "xlong": 100},
        latencies_s={"short": [0.1 * n for n in range(1, 102)], "medium": [], "long": []},
        refusals=refusals,
    )


def cell(**figures: Any) -> Cell:
    return Cell((outcome(**figures),))


class Counting(Here):
    """Workers that note which jobs they were asked for."""

    def __init__(self) -> None:
        self.seen: list[SimulationJob] = []

    def run(self, jobs: Any) -> Any:
        for batch in super().run(jobs):
            self.seen += [one for one, _ in batch]
            yield batch


__all__ = ["Batch", "Counting", "base", "bench", "cell", "job", "outcome", "small_paper"]
