"""`penstock simulate` as its users meet it."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group

SCENARIO = """
seeds = [1, 2]
[provider]
model = "slots"
[workload]
requests = 40
rate_per_s = 3.0
[policies.default]
[policies.fifo]
allocation = "fifo"
ordering = "fifo"
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "scenario.toml"
    path.write_text(SCENARIO, "utf-8")
    return path


def run(*args: Any) -> Result:
    return CliRunner().invoke(group, ["simulate", *map(str, args)])


def test_a_scenario_ends_in_a_table_with_a_row_per_policy(scenario: Path) -> None:
    result = run(scenario)

    assert result.exit_code == 0
    rows = [line.split()[0] for line in result.output.splitlines() if line.split()]
    assert {"default", "fifo"} <= set(rows)
    assert "Means over 2 seeds" in result.output
    assert max(map(len, result.output.splitlines())) <= 80


def test_the_json_holds_a_row_per_policy_and_seed(scenario: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.json"

    result = run(scenario, "--json", out)

    assert result.exit_code == 0
    document = json.loads(out.read_text("utf-8"))
    assert [(r["policy"], r["seed"]) for r in document["results"]] == [
        ("default", 1),
        ("default", 2),
        ("fifo", 1),
        ("fifo", 2),
    ]
    assert document["results"][0]["completion_rate"] == 1.0


def test_json_to_standard_output_is_nothing_but_json(scenario: Path) -> None:
    result = run(scenario, "--json", "-", "--processes", 1)

    assert len(json.loads(result.stdout)["results"]) == 4


def test_the_same_file_gives_the_same_bytes(scenario: Path) -> None:
    assert run(scenario, "--json", "-").stdout == run(scenario, "--json", "-").stdout


def test_a_mistake_is_one_line_with_key_value_and_rule(scenario: Path) -> None:
    scenario.write_text(SCENARIO.replace("requests = 40", "requests = -1"), "utf-8")

    result = run(scenario)

    assert result.exit_code == 1
    assert result.output == "Error: workload.requests = -1: must be a whole number >= 1\n"


def test_a_missing_file_is_one_line_too(tmp_path: Path) -> None:
    result = run(tmp_path / "nowhere.toml")

    assert result.exit_code == 1
    assert "cannot be read" in result.output
    assert "Traceback" not in result.output


def test_a_bucket_that_never_completes_shows_as_a_dash(scenario: Path) -> None:
    only_long = SCENARIO.replace("rate_per_s = 3.0", "rate_per_s = 3.0\nmix = { long = 1.0 }")
    scenario.write_text(only_long, "utf-8")

    result = run(scenario)

    row = next(line for line in result.output.splitlines() if line.strip().startswith("fifo"))
    assert row.split()[1] == "-"
