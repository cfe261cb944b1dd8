"""Make one run: a pure function of the job."""

from collections import Counter
from dataclasses import asdict, fields, replace

from penstock.errors import ProtocolError
from penstock.experiments.job import SimulationJob
from penstock.experiments.outcome import GROUPS, RunOutcome
from penstock.metrics import (
    BUCKETS,
    RequestOutcome,
    RequestRecord,
    RunMetrics,
    measure,
    nearest_rank,
)
from penstock.sim.engine import Rejection, Run
from penstock.sim.scenario import read_scenario
from penstock.sim.simulate import run_one

FIGURES = tuple(each.name for each in fields(RunMetrics) if each.name not in ("shed", "submitted"))
"""The names of the metrics, in the order of the tables."""


def run_job(job: SimulationJob) -> RunOutcome:
    """Simulate the job and return what it left.

    Raises:
        ConfigError: the scenario or the policy cannot be.
        ProtocolError: a policy's bug; the text holds the whole job, so that it can be made again.

    """
    document = {**job.scenario, "seeds": [job.seed], "policies": {"it": job.policy}}
    try:
        outcome = outcome_of(run_one(read_scenario(document), "it", job.seed))
    except ProtocolError as error:
        raise ProtocolError(f"{error}; the run was {job.text()}") from error
    return outcome if job.detail else replace(outcome, latencies_s={}, refusals=())


def outcome_of(run: Run) -> RunOutcome:
    """Return the figures of a simulated run."""
    return outcome_of_records(run.records, tuple(run.refusals))


def outcome_of_records(
    records: list[RequestRecord], refusals: tuple[Rejection, ...] = ()
) -> RunOutcome:
    """Return the figures of any run, simulated or live."""
    metrics = asdict(measure(records))
    submitted = Counter(r.bucket for r in records)
    in_time = Counter(r.bucket for r in records if r.in_time)
    return RunOutcome(
        figures={name: metrics[name] for name in FIGURES},
        shed=metrics["shed"],
        submitted={bucket: submitted[bucket] for bucket in BUCKETS},
        in_time={bucket: in_time[bucket] for bucket in BUCKETS},
        latencies_s={name: _quantiles(records, members) for name, members in GROUPS.items()},
        refusals=refusals,
    )


def _quantiles(records: list[RequestRecord], buckets: tuple[str, ...]) -> list[float]:
    ordered = sorted(
        r.latency_s
        for r in records
        if r.outcome is RequestOutcome.COMPLETED and r.bucket in buckets
    )
    if not ordered:
        return []
    ranked = (nearest_rank(ordered, percent) for percent in range(1, 101))
    return [round(v, 6) for v in (ordered[0], *ranked) if v is not None]
