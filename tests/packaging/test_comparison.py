"""The comparison page's table is what its command prints."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.house.pages import blocks


@pytest.mark.slow
def test_the_table_is_what_the_command_beside_it_prints(root: Path, tmp_path: Path) -> None:
    page = root / "docs" / "comparison.md"
    (scenario,) = [block.text for block in blocks(page) if block.mark == "comparison.toml"]
    (tmp_path / "comparison.toml").write_text(scenario)
    said = subprocess.run(
        [Path(sys.executable).with_name("penstock"), "simulate", "comparison.toml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    printed = {line.split()[0]: line.split()[1:] for line in said.splitlines() if line.split()}

    table = re.findall(r"^\| (\w+) \| ([\d.]+ .*) \|$", page.read_text(), flags=re.MULTILINE)

    assert [name for name, _ in table] == re.findall(
        r"^\[policies\.(\w+)\]", scenario, re.MULTILINE
    )
    for name, cells in table:
        short, long, every, _, _, in_time, useful, *_ = printed[name]
        assert cells.split(" | ") == [short, long, every, in_time, useful], name
