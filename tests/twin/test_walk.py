"""From a log to a scenario, and from a policy to what it would have changed: the front door."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group
from penstock.sim.scenario import load_scenario

SCENARIO = """
seeds = [1]
[provider]
model = "slots"
slots = 8
tokens_per_s = 150.0
ttft_s = 0.2
jitter = 0.05
[workload]
requests = 500
rate_per_s = 2.0
stream = true
"""


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(group, [str(word) for word in words])


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("log")
    (folder / "scenario.toml").write_text(SCENARIO)
    path = folder / "decisions.jsonl"
    assert run("simulate", folder / "scenario.toml", "--decision-log", path).exit_code == 0
    return path


@pytest.mark.slow
def test_a_fit_finds_the_provider_and_simulate_takes_it(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "fitted.toml"

    result = run("fit", log, "-o", out)

    assert result.exit_code == 0, result.output
    assert "within 2 points and 15 %" in result.output
    table = load_scenario(out).provider
    assert table["model"] == "slots"
    assert table["slots"] == 8
    assert table["tokens_per_s"] == pytest.approx(150.0, rel=0.02)
    assert table["ttft_s"] == pytest.approx(0.2, rel=0.1)
    assert table["jitter"] == pytest.approx(0.05, rel=0.2)
    assert run("simulate", out).exit_code == 0


@pytest.mark.slow
def test_whatif_knows_that_a_small_window_would_miss_deadlines(log: Path, tmp_path: Path) -> None:
    policy = tmp_path / "narrow.toml"
    policy.write_text('[scheduler]\ncapacity = { kind = "fixed", window = 2 }\n')
    figures = tmp_path / "figures.json"

    result = run("whatif", log, "--policy", policy, "--price-out", "10", "--json", figures)

    assert result.exit_code == 0, result.output
    assert "deadlines met" in result.output
    assert "USD" in result.output
    assert max(map(len, result.stdout.splitlines())) <= 80
    steps = result.stderr.splitlines()
    assert steps[0].startswith("fitting models of the provider")
    assert steps[-1] == "running 500 calls under both configurations ..."
    report = json.loads(figures.read_text())
    assert report["trusted"] is True
    everything = report["groups"][0]
    met = everything["figures"]["met"]
    assert everything["calls"] == 500
    assert met["sure"] is True
    assert met["high"] < 0
    assert met["now"] == pytest.approx(met["real"], abs=0.02)
    assert [g["name"] for g in report["groups"] if g["kind"] == "class"] == ["heavy", "interactive"]


def test_a_policy_that_names_what_is_not_there_is_refused_at_once(
    log: Path, tmp_path: Path
) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text('[[classes]]\nname = "urgent"\nweight = 9.0\n')

    result = run("whatif", log, "--policy", policy)

    assert result.exit_code == 1
    assert "there is no 'urgent' in the log: it has interactive, heavy" in result.output


def test_an_empty_policy_is_refused(log: Path, tmp_path: Path) -> None:
    policy = tmp_path / "policy.toml"
    policy.write_text("")

    result = run("whatif", log, "--policy", policy)

    assert result.exit_code == 1
    assert "\n  changes nothing: it must have" in result.output


def test_too_short_a_log_is_not_to_be_trusted(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(SCENARIO.replace("requests = 500", "requests = 120"))
    log = tmp_path / "decisions.jsonl"
    assert run("simulate", tmp_path / "scenario.toml", "--decision-log", log).exit_code == 0

    result = run("fit", log, "-o", tmp_path / "fitted.toml")

    assert result.exit_code == 3
    assert "Not to be trusted here, because only" in result.output
    assert "# Not to be trusted here" in (tmp_path / "fitted.toml").read_text()


@pytest.mark.slow
def test_what_was_decided_by_other_settings_is_left_out_and_told(log: Path, tmp_path: Path) -> None:
    policy = tmp_path / "narrow.toml"
    policy.write_text('[scheduler]\ncapacity = { kind = "fixed", window = 2 }\n')
    lines = log.read_text().splitlines()
    settings = json.loads(lines[0])["settings"]
    middle = len(lines) // 4
    now = json.loads(lines[middle])["now"]
    changed = {"now": now, "event": "reconfigured", "settings": settings}
    again = tmp_path / "reloaded.jsonl"
    again.write_text("\n".join([*lines[:middle], json.dumps(changed), *lines[middle:], ""]))

    result = run("whatif", again, "--policy", policy)

    assert "since 19" in result.output, result.output
    assert "when the scheduler's settings last changed; not the" in result.output


def test_several_runs_do_not_fit_into_one_log(tmp_path: Path) -> None:
    (tmp_path / "scenario.toml").write_text(SCENARIO.replace("[1]", "[1, 2]"))

    result = run(
        "simulate", tmp_path / "scenario.toml", "--decision-log", tmp_path / "decisions.jsonl"
    )

    assert result.exit_code == 2
    assert "it must have one policy and one seed" in result.output
