"""`penstock predict report` after a crash, with a bad line, or names that look like markup."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group

OUTCOME = {
    "result": "completed", "traffic_class": "heavy", "source": "table",
    "p50_tokens": 100, "p90_tokens": 300, "output_tokens": 120,
}  # fmt: skip
LINE = json.dumps({"outcome": OUTCOME}).encode() + b"\n"


@pytest.fixture
def report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], Result]:
    monkeypatch.chdir(tmp_path)

    def of(log: bytes) -> Result:
        Path("log.jsonl").write_bytes(log)
        words = ["predict", "report", "log.jsonl", "--out", "plot.png", "--json", "out.json"]
        return CliRunner().invoke(group, words)

    return of


@pytest.mark.parametrize(
    "cut",
    [b'{"outcome": {"p50_to', b'{"outcome": {"route": "caf\xc3', b"{"],
    ids=["text", "letter", "brace"],
)
def test_a_last_line_that_a_crash_cut_is_passed_over_aloud(
    report: Callable[[bytes], Result], cut: bytes
) -> None:
    result = report(LINE + LINE + cut)

    assert result.exit_code == 0, result.output
    assert "log.jsonl, line 3: the last line was cut and is passed over" in result.stderr
    assert json.loads(Path("out.json").read_text())["n"] == 2


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        (b'{"outcome": {"p50_to\n', "line 2: is not JSON"),
        (b'{"outcome": "caf\xe9"}\n', "line 2: is not UTF-8"),
        (LINE.replace(b"100", b"NaN"), "line 2: `p50_tokens` is nan"),
        (LINE.replace(b"100", b"0"), "line 2: `p50_tokens` is 0; it must be"),
        (LINE.replace(b"300", b"Infinity"), "line 2: `p90_tokens` is inf"),
        (LINE.replace(b"120", b"true"), "line 2: `output_tokens` is True"),
        (LINE.replace(b"120", b"1e30"), "line 2: `output_tokens` is 1e+30"),
    ],
    ids=["cut", "latin-1", "NaN", "0", "Infinity", "true", "1e30"],
)
def test_a_bad_line_before_the_end_is_named(
    report: Callable[[bytes], Result], bad: bytes, why: str
) -> None:
    result = report(LINE + bad + LINE)

    assert result.exit_code == 1
    assert result.stderr.startswith("Error: log.jsonl, ")
    assert why in result.stderr


def test_names_from_a_log_are_shown_as_they_are_and_no_section_is_empty(
    report: Callable[[bytes], Result],
) -> None:
    names = ["[/x]", "[red]hey", ":smile:", "\x1b[2J", "\ud800"]
    lines = [json.dumps({"outcome": {**OUTCOME, "route": name}}) + "\n" for name in names]

    result = report("".join(lines).encode())

    assert result.exit_code == 0, result.exception
    shown = [line.split()[0] for line in result.stdout.splitlines() if line.strip()]
    assert {"[/x]", "[red]hey", ":smile:", r"\x1b[2J", r"\ud800"} <= set(shown)
    assert [name for name in shown if name in ("routes", "sources")] == ["routes", "sources"]
    assert not {"stretches", "models"} & set(shown)
