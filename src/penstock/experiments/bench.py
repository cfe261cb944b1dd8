"""Where a study's runs come from: the store if it has them, else the workers.

Finished runs are on disk, so that an interrupted study goes on where it stopped.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import penstock
from penstock.errors import ConfigError
from penstock.experiments.measure import RunOutcome, SimulationJob
from penstock.experiments.pool import Workers


class Store:
    """An append-only file of finished runs, by content hash.

    One line a run. A line that was cut off (power, Ctrl-C, a full disk) is left out when reading:
    its run is made again.
    """

    def __init__(self, directory: Path) -> None:
        """Open or make `runs.jsonl` in the directory.

        Raises:
            ConfigError: the directory cannot be made or written.

        """
        self.path = directory / "runs.jsonl"
        self._found: dict[str, RunOutcome] = {}
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._load()
            self._file = self.path.open("a", encoding="utf-8")
        except OSError as error:
            raise ConfigError(f"--out {directory}: cannot be written: {error}") from error

    def __len__(self) -> int:
        """Return how many runs are known."""
        return len(self._found)

    def get(self, key: str) -> RunOutcome | None:
        """Return the run of that key, or None if it has not been made."""
        return self._found.get(key)

    def put(self, key: str, outcome: RunOutcome) -> None:
        """Keep a run, on disk before returning."""
        self._found[key] = outcome
        line = json.dumps({"key": key, "run": outcome.to_json()}, separators=(",", ":"))
        self._file.write(line + "\n")
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _load(self) -> None:
        if not self.path.exists():
            return
        text = self.path.read_text("utf-8")
        for line in text.splitlines():
            entry = _entry(line)
            if entry is not None:
                self._found[entry["key"]] = RunOutcome.from_json(entry["run"])
        if text and not text.endswith("\n"):
            with self.path.open("a", encoding="utf-8") as file:
                file.write("\n")


def _entry(line: str) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return None
    return entry if isinstance(entry, dict) and {"key", "run"} <= entry.keys() else None


Progress = Callable[[str, int, int], None]
"""Told a label, how many runs are done, and how many there are."""

_PARTS = ("core/", "policies/", "predict/sampled_errors.py", "metrics.py", "errors.py", "sim/")
_IRRELEVANT = ("sim/mock/",)
_RUNS = ("experiments/measure.py", "experiments/measure.py", "experiments/measure.py")


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
