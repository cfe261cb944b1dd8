"""`penstock replay` repeats the decisions of a log, and notices when they are not the same."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group
from penstock.core.events import Arrived, Completed
from penstock.core.model import Request, TokenEstimate
from penstock.log.writer import DecisionLog
from penstock.policies.registry import build_scheduler
from penstock.proxy.config import loads

CONFIG = """
[[upstreams]]
name = "practice"
base_url = "http://127.0.0.1:1/v1"
models = ["gpt-*"]

[scheduler]
capacity = { kind = "fixed", window = 1 }
"""


def replay(*words: object) -> Result:
    return CliRunner().invoke(group, ["replay", *map(str, words)])


def request(number: int, at: float) -> Request:
    return Request(number, "interactive", at, TokenEstimate(30, 60), model="openai/gpt-5")


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Return the log of two requests that shared one place, by the sidecar's own settings."""
    settings = loads(CONFIG, env={}).settings
    scheduler = build_scheduler(settings)
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, run="aa", now=100.0, settings=settings, wall=lambda: 1e9)
    for now, event in (
        (100.5, Arrived(request(1, 100.5))),
        (101.0, Arrived(request(2, 101.0))),
        (102.0, Completed(1, 31)),
        (103.0, Completed(2, 29)),
    ):
        log.event(now, event)
        for action in scheduler.handle(event, now=now):
            log.action(now, action)
    log.close()
    return path


def test_the_same_scheduler_decides_the_same(log: Path) -> None:
    result = replay(log)

    assert result.output == "Run aa: 2 decisions, 0 differ.\n"
    assert result.exit_code == 0


def test_a_decision_that_would_not_be_taken_is_shown(log: Path) -> None:
    log.write_text(log.read_text().replace('"in_flight":0', '"in_flight":5', 1))

    result = replay(log)

    assert result.exit_code == 1
    assert "Run aa: 2 decisions, 1 differ." in result.output
    assert "The first: 0.500 s after its start" in result.output
    assert "in_flight=5" in result.output
    assert "in_flight=0" in result.output


@pytest.mark.parametrize("end", ["", "\n"])
def test_a_last_line_that_a_crash_cut_is_passed_over_and_said_to_be(log: Path, end: str) -> None:
    lines = log.read_text("utf-8").splitlines(keepends=True)
    last = max(n for n, line in enumerate(lines) if '"dispatch"' in line)
    log.write_text("".join(lines[:last]) + lines[last][:40] + end, "utf-8")

    result = replay(log)

    assert result.stdout == "Run aa: 1 decisions, 0 differ.\n"
    assert f"its last line, {last + 1}, is cut off and was passed over" in result.stderr
    assert result.exit_code == 0


def test_a_run_that_is_not_in_the_log_is_named(log: Path) -> None:
    result = replay(log, "--run", "bb")

    assert result.exit_code == 1
    assert "nothing to replay in run bb" in result.output


def test_a_missing_log_is_said_to_be_missing(tmp_path: Path) -> None:
    result = replay(tmp_path / "none.jsonl")

    assert result.exit_code == 1
    assert "no decision log at" in result.output
