"""`penstock predict report` after a crash, with a bad line, or names that look like markup."""

import json
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group
from penstock.core.events import Arrived, Completed, Failed
from penstock.core.model import Request, TokenEstimate
from penstock.log.writer import DecisionLog

CHAT = ("chat", 100, 120)


def log(*replies: tuple[str, int, int]) -> bytes:
    """Return a decision log in which requests completed: each one's route, p50 and real tokens."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "log"
        written = DecisionLog(path, run="r", now=0.0)
        for number, (route, p50, tokens) in enumerate(replies, start=1):
            asked = Request(number, "heavy", 0.0, TokenEstimate(p50, 3 * p50), route=route)
            written.event(0.0, Arrived(asked))
            written.event(1.0, Completed(number, tokens))
        # What ended otherwise is no truth to hold an estimate against.
        for number, end in ((998, Failed(998)), (999, Completed(999, 7, reported=False))):
            written.event(0.0, Arrived(Request(number, "heavy", 0.0, TokenEstimate(1, 1))))
            written.event(1.0, end)
        written.close()
        return path.read_bytes()


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Result]:
    monkeypatch.chdir(tmp_path)

    def of(text: bytes) -> Result:
        Path("log.jsonl").write_bytes(text)
        words = ["predict", "report", "log.jsonl", "--out", "plot.png", "--json", "out.json"]
        return CliRunner().invoke(group, words)

    return of


def test_a_decision_log_becomes_figures_and_a_plot(report: Callable[[bytes], Result]) -> None:
    result = report(log(*(("chat", 110 * n, 100 * n) for n in range(1, 101))))

    assert result.exit_code == 0, result.output
    figures = json.loads(Path("out.json").read_text())
    assert figures["n"] == figures["routes"]["chat"]["n"] == 100
    assert figures["median_multiplicative_error"] == pytest.approx(1.1)
    assert figures["p90_coverage"] == 1.0
    assert Path("plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_last_line_that_a_crash_cut_is_passed_over_aloud(
    report: Callable[[bytes], Result],
) -> None:
    result = report(log(CHAT, CHAT) + b'{"outcome": {"p50_to')

    assert result.exit_code == 0, result.output
    assert "its last line, 10, is cut off and was passed over" in result.stderr
    assert json.loads(Path("out.json").read_text())["n"] == 2


def test_a_bad_line_before_the_end_is_named(report: Callable[[bytes], Result]) -> None:
    result = report(log(CHAT) + b"{oops\n" + log(CHAT))

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: log.jsonl:8 ")


def test_a_log_in_which_nothing_completed_is_refused(report: Callable[[bytes], Result]) -> None:
    result = report(log())

    assert result.exit_code == 1
    assert "no line has an estimate and a real token count" in result.stderr


def test_names_from_a_log_are_shown_as_they_are_and_no_section_is_empty(
    report: Callable[[bytes], Result],
) -> None:
    names = ["[/x]", "[red]hey", ":smile:", "\x1b[2J", "\ud800"]

    result = report(log(*((name, 100, 120) for name in names)))

    assert result.exit_code == 0, result.exception
    shown = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    assert {"[/x]", "[red]hey", ":smile:", r"\x1b[2J", r"\ud800"} <= set(shown)
    assert [name for name in shown if name in ("routes", "sources")] == ["routes", "sources"]
    assert not {"stretches", "models"} & set(shown)
