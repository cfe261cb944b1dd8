"""`penstock predict`: train, evaluate and report, from files to figures."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.predict import command
from tests.predict.replies import invented

FIGURES = {
    "n", "bucket_accuracy", "pair_ranking", "spearman", "median_multiplicative_error",
    "pinball_p50_log", "pinball_p90_log", "p90_coverage",
}  # fmt: skip


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, count, seed in (("train", 300, 1), ("test", 200, 2)):
        rows = [
            {"prompt": a.prompt, "output_tokens": a.tokens, "route": "mail", "model": "m"}
            for a in invented(count, seed=seed)
        ]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return tmp_path


def run(folder: Path, *arguments: str) -> dict[str, Any]:
    out = folder / "out.json"
    done = CliRunner().invoke(command, [*arguments, "--json", str(out)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    report: dict[str, Any] = json.loads(out.read_text())
    return report


def test_a_trained_predictor_is_scored_on_prompts_kept_back(files: Path) -> None:
    report = run(
        files, "evaluate", "--train", str(files / "train.jsonl"),
        "--test", str(files / "test.jsonl"), "--learner", "numpy",
    )  # fmt: skip

    assert set(report) == FIGURES | {"latency_p50_us", "state_bytes", "routes", "models"}
    assert set(report["routes"]["mail"]) == FIGURES
    assert report["n"] == report["models"]["m"]["n"] == 200
    assert report["bucket_accuracy"] > 0.95
    assert 0.86 <= report["p90_coverage"] <= 0.97


def test_a_stream_is_scored_by_stretches_and_gets_better(files: Path) -> None:
    report = run(files, "evaluate", "--test", str(files / "test.jsonl"), "--online")

    stretches = report["stretches"]
    assert list(stretches) == ["0-50", "50-100", "100-250"]
    assert [part["n"] for part in stretches.values()] == [50, 50, 100]
    late, early = stretches["100-250"], stretches["0-50"]
    assert late["median_multiplicative_error"] < early["median_multiplicative_error"]


def test_boosted_trees_are_an_optional_learner(files: Path) -> None:
    report = run(
        files, "evaluate", "--train", str(files / "train.jsonl"),
        "--test", str(files / "test.jsonl"), "--learner", "boosted",
    )  # fmt: skip

    assert report["bucket_accuracy"] > 0.95


def test_a_prior_trained_on_ones_own_records_can_be_used_at_once(files: Path) -> None:
    prior = files / "prior.npz"
    done = CliRunner().invoke(
        command, ["train", str(files / "train.jsonl"), "--unlabelled", "--out", str(prior)]
    )
    assert done.exit_code == 0, done.output

    report = run(files, "evaluate", "--test", str(files / "test.jsonl"), "--prior", str(prior))

    assert report["bucket_accuracy"] > 0.95


def test_sections_without_rows_are_left_out_and_names_are_no_markup(tmp_path: Path) -> None:
    test = tmp_path / "test.jsonl"
    rows = [{"prompt": "x", "output_tokens": 7, "route": name} for name in ("[/x]", "[red]hey")]
    test.write_text("".join(json.dumps(row) + "\n" for row in rows))

    done = CliRunner().invoke(command, ["evaluate", "--test", str(test)], catch_exceptions=False)

    shown = [line.split()[0] for line in done.stdout.splitlines() if line.strip()]
    assert shown[1:6] == ["all", "routes", "[/x]", "[red]hey", "models"]


@pytest.mark.parametrize("learner", ["numpy", "boosted"])
@pytest.mark.parametrize("count", [1, 2])
def test_one_recorded_reply_is_enough_to_train_on(tmp_path: Path, learner: str, count: int) -> None:
    file = tmp_path / "few.jsonl"
    rows = [{"prompt": "word " * n, "output_tokens": 40} for n in range(count)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    report = run(
        tmp_path, "evaluate", "--train", str(file), "--test", str(file), "--learner", learner
    )

    assert report["median_multiplicative_error"] < 1.5
    out = ["--learner", learner, "--out", str(tmp_path / "prior.npz")]
    assert CliRunner().invoke(command, ["train", str(file), *out]).exit_code == 0


def test_a_prior_that_is_not_there_is_refused_in_one_line(files: Path) -> None:
    test = str(files / "test.jsonl")

    done = CliRunner().invoke(command, ["evaluate", "--test", test, "--prior", "nope.npz"])

    assert done.exit_code == 2
    said = " ".join(done.stderr.split())
    assert "--prior: 'nope.npz' cannot be read (No such file or directory)" in said
