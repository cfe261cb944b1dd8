"""`penstock simulate` as its users meet it."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import click
import psutil  # type: ignore[import-untyped]
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


PENSTOCK = [sys.executable, "-m", "penstock"]


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


def test_a_mistake_is_one_line_with_file_key_value_and_rule(scenario: Path) -> None:
    scenario.write_text(SCENARIO.replace("requests = 40", "requests = -1"), "utf-8")

    result = run(scenario)

    assert result.exit_code == 1
    assert result.output == (
        f"Error: {scenario}: 1 problem; nothing was started.\n"
        "  workload.requests = -1: must be a whole number >= 1 and <= 10000000, "
        "as all are held in memory\n"
    )


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


def with_policies(scenario: Path, *names: str) -> Path:
    tables = "".join(f"[policies.{json.dumps(name)}]\n" for name in names)
    scenario.write_text(SCENARIO.partition("[policies")[0] + tables, "utf-8")
    return scenario


def on_a_terminal(scenario: Path, *, columns: int) -> str:
    """Return what a terminal of that width shows, in plain characters."""
    ours, theirs = pty.openpty()
    environment = os.environ | {"COLUMNS": str(columns), "TERM": "xterm", "NO_COLOR": "1"}
    process = subprocess.Popen(
        [*PENSTOCK, "simulate", scenario], stdout=theirs, stderr=subprocess.PIPE, env=environment
    )
    os.close(theirs)
    said = b""
    while piece := _piece(ours):
        said += piece
    os.close(ours)
    process.communicate()
    return click.unstyle(said.decode())


def _piece(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # how Linux says that the other side has closed
        return b""


def test_in_a_pipe_no_name_is_so_long_that_anything_is_cut(scenario: Path) -> None:
    name = "every_upstream_with_its_own_window_" * 5

    result = run(with_policies(scenario, name, "b"))

    rows = [line.split() for line in result.stdout.splitlines() if "%" in line]
    assert [row[0] for row in rows] == [name, "b"]
    assert rows[0][1:] == rows[1][1:]
    assert "…" not in result.stdout


def test_a_narrow_terminal_folds_the_name_and_leaves_the_figures_whole(scenario: Path) -> None:
    name = "every_upstream_with_its_own_window"
    wide = run(with_policies(scenario, name, "b")).stdout
    figures = next(line for line in wide.splitlines() if name in line).split()[1:]

    shown = on_a_terminal(scenario, columns=80).splitlines()

    first = next(line for line in shown if "%" in line)
    assert first.split()[1:] == figures
    assert name.startswith(first.split()[0])
    assert max(map(len, shown)) <= 80


def test_no_terminal_is_so_narrow_that_a_figure_is_cut(scenario: Path) -> None:
    figures = run(scenario).stdout.split("default")[1].split()[:9]

    shown = on_a_terminal(scenario, columns=20)

    assert next(line for line in shown.splitlines() if "%" in line).split()[1:] == figures


def test_names_with_brackets_or_escapes_are_shown_as_they_are_written(scenario: Path) -> None:
    result = run(with_policies(scenario, "[/x]", "[red]x[/red]", "a\x1b[31mb"))

    assert result.exit_code == 0
    rows = [line.split()[0] for line in result.stdout.splitlines() if "%" in line]
    assert rows == ["[/x]", "[red]x[/red]", "a\\x1b[31mb"]


def test_policies_stand_in_the_files_order_with_their_decimals_in_line(scenario: Path) -> None:
    result = run(with_policies(scenario, "z", "a", "m"))

    rows = [line for line in result.stdout.splitlines() if "%" in line]
    assert [row.split()[0] for row in rows] == ["z", "a", "m"]
    points = [[at for at, char in enumerate(row) if char in ".%"] for row in rows]
    assert points[0] == points[1] == points[2]


def test_shed_counts_are_means_with_one_decimal_at_most(scenario: Path) -> None:
    text = SCENARIO.replace("seeds = [1, 2]", "seeds = [1, 2, 3]")
    text = text.replace('model = "slots"', 'model = "slots"\nslots = 3')
    text = text.replace("requests = 40", "requests = 300").replace("= 3.0", "= 6.0")
    scenario.write_text(text, "utf-8")

    row = next(line for line in run(scenario).stdout.splitlines() if line.startswith("  default"))

    shed = row.split()[-1].split("/")
    assert len(shed) == 4
    assert any(count != "0" for count in shed)
    assert all(len(count.partition(".")[2]) <= 1 and not count.endswith(".0") for count in shed)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a full device")
@pytest.mark.parametrize("options", [[], ["--json", "-"]])
def test_a_full_disk_behind_standard_output_is_one_line(scenario: Path, options: list[str]) -> None:
    with Path("/dev/full").open("w") as full:
        ended = subprocess.run(
            [*PENSTOCK, "simulate", scenario, *options],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )

    assert ended.returncode == 1
    assert ended.stderr == (
        "Error: standard output cannot be written (No space left on device): the disk is full\n"
    )


@pytest.mark.parametrize("options", [[], ["--json", "-"]])
def test_a_reader_that_leaves_is_no_error(scenario: Path, options: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ended = subprocess.run(
        [*PENSTOCK, "simulate", scenario, *options],
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
    )
    os.close(writer)

    assert ended.stderr == b""


@pytest.mark.slow
def test_ctrl_c_does_not_wait_for_the_runs_under_way(scenario: Path) -> None:
    # Each run would take minutes, so that waiting for one is a timeout.
    scenario.write_text(SCENARIO.replace("requests = 40", "requests = 400000"), "utf-8")
    process = subprocess.Popen(
        [*PENSTOCK, "simulate", scenario, "--processes", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    command = psutil.Process(process.pid)
    workers: list[psutil.Process] = []
    while sum(worker.cpu_times().user > 0.1 for worker in workers) < 2:
        assert process.poll() is None
        workers = command.children()
        time.sleep(0.01)  # or the look itself has one of the cores

    os.killpg(process.pid, signal.SIGINT)
    said = process.communicate(timeout=30)

    assert process.returncode == 130, said[1]
    assert said[0] == ""
    assert said[1].strip().startswith("Stopped: nothing was written")
    assert len(said[1].strip().splitlines()) == 1
    assert not any(worker.is_running() for worker in workers)


def test_a_log_that_a_crash_cut_runs_and_is_said_to_be_cut(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Given two runs of a decision log, the second of which ends in half a line."""
    asked = {
        "id": 1,
        "traffic_class": "chat",
        "arrived_at": 5.0,
        "estimate": {"p50_tokens": 20, "p90_tokens": 40, "source": "table"},
        "deadline": None,
    }
    arrived = json.dumps({"now": 5.0, "event": "arrived", "request": asked})
    header: dict[str, object] = {"penstock_decision_log": 1, "started_unix_s": 0, "started_at": 0}
    header["settings"] = {"classes": [{"name": "chat"}]}
    headers = [json.dumps({**header, "run": run}) for run in ("aa", "bb")]
    lines = [headers[0], arrived, headers[1], arrived, '{"now": 6.0, "ev']
    (tmp_path / "log.jsonl").write_text("\n".join(lines), "utf-8")
    path = tmp_path / "scenario.toml"
    path.write_text(
        '[provider]\nmodel = "slots"\n[workload]\ntrace = "log.jsonl"\ninformation = "recorded"\n',
        "utf-8",
    )

    result = run(path, "--json", "-")

    assert result.exit_code == 0
    assert json.loads(result.stdout)["results"][0]["completion_rate"] == 1.0
    assert "log.jsonl: its last line, 5, is cut off and was passed over" in caplog.text
