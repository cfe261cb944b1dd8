"""A million lines take hardly more memory than ten thousand."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LONG, ROOT


def peak_mb(count: int, folder: Path) -> float:
    folder.mkdir()
    words = [sys.executable, "-m", "tests.batch.peak", str(count), str(folder)]
    said = subprocess.run(words, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    done, peak_kb = said.split()
    assert int(done) == count
    return int(peak_kb) / 1000


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_million_lines_are_not_read_into_memory(tmp_path: Path) -> None:
    lines = 1_000_000 if LONG else 100_000
    small = peak_mb(10_000, tmp_path / "small")
    large = peak_mb(lines, tmp_path / "large")

    assert (tmp_path / "large" / "in.jsonl").stat().st_size > 200 * lines
    print(f"peak {small:.1f} MB at 10,000 lines, {large:.1f} MB at {lines:,}")
    assert large - small < 25e-6 * lines  # 12 to 17 bytes a line were measured; a line has 237
