"""Which code a cached run came from."""

import hashlib
from functools import cache
from pathlib import Path

import penstock

_PARTS = ("core/", "policies/", "predict/sampled_errors.py", "metrics.py", "errors.py", "sim/")
_IRRELEVANT = ("sim/mock/",)
_RUNS = ("experiments/job.py", "experiments/measure.py", "experiments/outcome.py")


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
