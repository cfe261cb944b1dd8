"""The decision log, to the byte: against a kept one, and between processes."""

import os
import subprocess
import sys
from pathlib import Path

from tests.golden.story import full_lines, steady_lines

KEPT = Path(__file__).parent / "steady.log"


def test_the_steady_stacks_decisions_are_the_kept_ones() -> None:
    """After a wanted change: `python -m tests.golden.keep`, and say in the commit what moved."""
    assert steady_lines() == KEPT.read_text().splitlines()


def test_the_kept_log_has_every_kind_of_decision_in_it() -> None:
    text = KEPT.read_text()

    for word in ("Dispatch", "Reject", "expired", "main", "spare", "backoff=", "upstream="):
        assert word in text, word


def test_decisions_do_not_depend_on_the_hash_seed(root: Path) -> None:
    logs = {_log_with_hash_seed(root, seed) for seed in ("0", "1", "4711")}

    assert logs == {"\n".join(full_lines()) + "\n"}


def _log_with_hash_seed(root: Path, seed: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "tests.golden.story"],
        cwd=root,
        env=os.environ | {"PYTHONHASHSEED": seed},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
