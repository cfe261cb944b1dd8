"""Finished runs on disk, so that an interrupted study goes on where it stopped."""

import json
from pathlib import Path
from typing import Any

from penstock.errors import ConfigError
from penstock.experiments.outcome import RunOutcome


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
