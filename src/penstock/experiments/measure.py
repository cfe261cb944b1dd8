"""One run: what it is made of (a job), how it is made, and what it leaves behind."""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Self

from penstock.errors import ProtocolError
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

Table = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class SimulationJob:
    """A run is a pure function of this.

    Attributes:
        scenario: the tables [provider], [workload] and, if not the usual ones, [classes], as
            `penstock simulate` takes them.
        policy: one of its [policies.NAME] tables; empty for the default stack.
        seed: of the workload and the provider.
        detail: keep latencies and refusals too, not only the figures; a search makes thousands
            of runs and needs only those.

    """

    scenario: Table
    policy: Table
    seed: int
    detail: bool = True

    def text(self) -> str:
        """Return the job as one line of JSON, the same for the same job."""
        parts = [self.scenario, self.policy, self.seed, self.detail]
        return json.dumps(parts, sort_keys=True, separators=(",", ":"))

    def key(self, version: str) -> str:
        """Return a content hash of the job under this version of the code."""
        return hashlib.sha256(f"{version}\n{self.text()}".encode()).hexdigest()[:32]


def overlay(below: Table, above: Table) -> dict[str, Any]:
    """Return `below` with the keys of `above` laid over it; tables are merged, values replaced."""
    merged = dict(below)
    for name, value in above.items():
        old = merged.get(name)
        both = isinstance(old, Mapping) and isinstance(value, Mapping)
        merged[name] = overlay(old, value) if both and old is not None else value
    return merged


GROUPS = {"short": ("short",), "medium": ("medium",), "long": ("long", "xlong")}
"""Groups of buckets whose latencies are kept; `long` covers xlong, as `long_p90_s` does."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The result of one job.

    Attributes:
        figures: the paper's metrics by name (`short_p95_s`, ...); None where nothing completed.
        shed: refused requests by bucket.
        submitted: requests by bucket.
        in_time: requests by bucket that met their true deadline.
        latencies_s: by group, 101 quantiles (nearest rank, from the least to the greatest), to the
            microsecond: they are drawn, not judged, and files stay small.
        refusals: every refused request.

    """

    figures: Mapping[str, float | None]
    shed: Mapping[str, int]
    submitted: Mapping[str, int]
    in_time: Mapping[str, int]
    latencies_s: Mapping[str, list[float]] = field(default_factory=dict)
    refusals: tuple[Rejection, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and dictionaries that `from_json` reads back to the same outcome."""
        plain = asdict(self)
        plain["refusals"] = [list(asdict(one).values()) for one in self.refusals]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError: a field is missing or of another form.

        """
        return cls(
            figures=plain["figures"],
            shed=plain["shed"],
            submitted=plain["submitted"],
            in_time=plain["in_time"],
            latencies_s=plain["latencies_s"],
            refusals=tuple(Rejection(*row) for row in plain["refusals"]),
        )


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
