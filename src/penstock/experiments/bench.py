"""Where a study's runs come from: the store if it has them, else the workers."""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path

import penstock
from penstock.experiments.job import SimulationJob
from penstock.experiments.outcome import RunOutcome
from penstock.experiments.pool import Workers
from penstock.experiments.store import Store

Progress = Callable[[str, int, int], None]
"""Told a label, how many runs are done, and how many there are."""

_PARTS = ("core/", "policies/", "predict/sampled_errors.py", "metrics.py", "errors.py", "sim/")
_IRRELEVANT = ("sim/mock/",)
_RUNS = ("experiments/job.py", "experiments/measure.py", "experiments/outcome.py")


def quiet(label: str, done: int, total: int) -> None:
    """Report no progress."""


class Bench:
    """Answers jobs with runs, each made at most once."""

    def __init__(self, store: Store, workers: Workers, progress: Progress = quiet) -> None:
        self._store = store
        self._workers = workers
        self._progress = progress
        self._version = code_version()
        self.made = 0
        """How many runs were made, not found."""

    def run(self, jobs: Iterable[SimulationJob], *, label: str) -> dict[str, RunOutcome]:
        """Return the outcome of every job by `SimulationJob.text()`.

        The result does not depend on how many workers there are, nor on the order in which they
        finish.
        """
        keys = {job.text(): (job, job.key(self._version)) for job in jobs}
        missing = [job for job, key in keys.values() if self._store.get(key) is None]
        total, done = len(keys), len(keys) - len(missing)
        if not keys:
            return {}  # nothing was asked for, so there is no progress to show
        self._progress(label, done, total)
        for batch in self._workers.run(missing):
            for job, outcome in batch:
                self._store.put(keys[job.text()][1], outcome)
                self.made += 1
                done += 1
            self._progress(label, done, total)
        found = {text: self._store.get(key) for text, (_, key) in keys.items()}
        return {text: outcome for text, outcome in found.items() if outcome is not None}

    def all_of(
        self, names: Sequence[str], make: Callable[[Sequence[str], Progress], Sequence[RunOutcome]]
    ) -> list[RunOutcome]:
        """Return the runs of these names; those that the store lacks are made here, together.

        Args:
            names: what tells the runs apart.
            make: makes the runs of the names that it is given.

        """
        keys = {
            name: hashlib.sha256(f"{self._version}\n{name}".encode()).hexdigest()[:32]
            for name in names
        }
        missing = [name for name in names if self._store.get(keys[name]) is None]
        if missing:
            for name, outcome in zip(missing, make(missing, self._progress), strict=True):
                self._store.put(keys[name], outcome)
                self.made += 1
        found = [self._store.get(keys[name]) for name in names]
        return [outcome for outcome in found if outcome is not None]


@cache
def code_version() -> str:
    """Return a hash over every source file that a run's result can depend on.

    Core, policies, the simulator and this package's own measuring; not the plots nor the mock's
    HTTP, or changing a colour would throw hours of runs away.
    """
    root = Path(penstock.__file__).parent
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        name = path.relative_to(root).as_posix()
        if _matters(name):
            digest.update(name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def _matters(name: str) -> bool:
    if name.startswith("experiments/"):
        return name in _RUNS
    return name.startswith(_PARTS) and not name.startswith(_IRRELEVANT)
