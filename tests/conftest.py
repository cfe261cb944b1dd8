"""What every test may lean on."""

import gc
import os
import signal
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import settings

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell starts what runs in the background deaf to Ctrl-C, and so would be all children
    # whose clean end by Ctrl-C the tests are about.
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The threads of BLAS wait for each other in busy loops: beside other work they took three times
# the CPU time, and as much longer. Children inherit it.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

# Nor does a machine that forbids bytecode have each of some hundred commands compile all that it
# imports: those of `penstock serve` take 0.8 s of CPU where somebody has compiled them, else 1.3.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# A worker's imports and five thousand tests are 6 s of CPU, and 1 to 2 s more where the collector
# goes through them again and again. It comes back once they are all there.
gc.disable()

ROOT = Path(__file__).parent.parent

LONG = bool(os.environ.get("PENSTOCK_LONG"))
"""Whether laws are shown at their full size: `make test-long`."""

# Shared machines stall, and a stall is no counterexample; and the same examples every time, so
# that a red build is the change's doing. `--hypothesis-profile=search` looks further afield.
settings.register_profile("house", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("search", deadline=None, max_examples=1_000)
settings.load_profile("house")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put the longest files first.

    The others would wait at the end for a file that began last.
    """
    if not hasattr(config, "workerinput"):
        return  # one process runs all, in the order of the folders
    length_s: Counter[Path] = Counter()
    for item in items:
        limit = item.get_closest_marker("timeout")
        slow_s = limit.args[0] if limit else 300
        length_s[item.path] += slow_s if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -length_s[item.path])


def pytest_collection_finish() -> None:
    """Let no collection of garbage look at what stays: all modules and tests, half a gigabyte."""
    gc.collect()
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def root() -> Path:
    """Return the top of the checkout."""
    return ROOT


@pytest.fixture(scope="session")
def public_data() -> Path | None:
    """Return the folder of public traces and prompts, or None where this machine has none.

    It is `$PENSTOCK_DATA`, or `../shared/data` beside the checkout. The project's own tests run
    without it; the ones that use it also say what they check when it is missing.
    """
    named = os.environ.get("PENSTOCK_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if named and not folder.is_dir():
        raise FileNotFoundError(f"PENSTOCK_DATA={named}: there is no such folder")
    return folder if folder.is_dir() else None


@pytest.fixture(scope="session")
def environments(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for virtual environments, which all workers of a run share."""
    base = tmp_path_factory.getbasetemp()
    return (base.parent if base.name.startswith("popen-") else base) / "environments"
