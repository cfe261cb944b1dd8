"""Every command that reads a decision log is given it alike: LOG last, or --log."""

from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group

COMMANDS = [
    ["explain", "simulated-1-7"],
    ["explain", "--window"],
    ["replay"],
    ["fit"],
    ["whatif", "--policy", "policy.toml"],
    ["predict", "report"],
]
"""`dashboard` is a page that stays: of it only what it refuses is asked."""


def run(*words: str) -> Result:
    return CliRunner().invoke(group, words)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("logs")
    (folder / "policy.toml").write_text("[scheduler]\nqueue_limit = 7\n")
    (folder / "day.toml").write_text(
        'seeds = [1]\n[provider]\nmodel = "slots"\n[workload]\nrequests = 60\nrate_per_s = 3.0\n'
    )
    log = str(folder / "log.jsonl")
    made = run("simulate", str(folder / "day.toml"), "--decision-log", log)
    assert made.exit_code == 0, made.output
    return folder


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_a_log_is_the_last_argument_or_an_option(
    words: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)

    last, option = run(*words, "log.jsonl"), run(*words, "--log", "log.jsonl")

    assert last.stdout
    assert (last.exit_code, last.stdout) == (option.exit_code, option.stdout)


@pytest.mark.parametrize("words", [*COMMANDS, ["dashboard"]], ids=" ".join)
def test_two_logs_are_refused(words: list[str]) -> None:
    told = run(*words, "one.jsonl", "--log", "two.jsonl")

    assert told.exit_code == 2
    assert "Error: " in told.output


@pytest.mark.parametrize("words", [["replay"], ["fit"], ["dashboard"], ["predict", "report"]])
def test_no_log_is_refused_where_no_sidecar_could_be_asked(words: list[str]) -> None:
    told = run(*words)

    assert told.exit_code == 2
    assert "Missing argument 'LOG'" in told.output
