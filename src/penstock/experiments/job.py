"""One run to be made: a scenario, a policy and a seed, and nothing else that could matter."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

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
