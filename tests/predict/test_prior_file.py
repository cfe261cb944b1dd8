"""A trained prior as a file: says the same after loading, or why it cannot be used."""

import importlib.util
import json
from importlib.machinery import ModuleSpec
from pathlib import Path
from zipfile import ZipFile

import pytest
from click.testing import CliRunner

from penstock.cli.predict import command
from penstock.predict import CallFeatures, Predictor, StateError
from penstock.predict.learners import learner
from penstock.predict.lessons import Lesson, lesson
from penstock.predict.prior import LogTokens
from penstock.predict.prior_file import read_prior, shipped_prior, write_prior
from tests.predict.replies import invented


def lessons(count: int = 200) -> list[Lesson]:
    return [lesson(asked.call, asked.tokens) for asked in invented(count, seed=1)]


def boosted() -> LogTokens:
    pytest.importorskip("lightgbm")
    return learner("boosted", wider=shipped_prior())(lessons())


def test_boosted_trees_say_the_same_to_the_last_digit_after_loading(tmp_path: Path) -> None:
    prior = boosted()
    write_prior(tmp_path / "prior.npz", prior)

    restored = read_prior(tmp_path / "prior.npz")

    for asked in invented(40, seed=2):
        assert restored.log_tokens(asked.call) == prior.log_tokens(asked.call)
    elsewhere = CallFeatures.from_prompt("Write a poem about the sea.", route="never seen")
    assert restored.log_tokens(elsewhere) == pytest.approx(prior.log_tokens(elsewhere), abs=1e-3)


def test_what_was_learned_on_top_of_boosted_trees_survives_a_restart(tmp_path: Path) -> None:
    write_prior(tmp_path / "prior.npz", boosted())
    predictor = Predictor.with_prior(read_prior(tmp_path / "prior.npz"))
    for asked in invented(60, seed=3, scale=2.0):
        predictor.learn(asked.call, asked.tokens)
    predictor.save(tmp_path / "state.npz")

    restored = Predictor.load(tmp_path / "state.npz", prior=read_prior(tmp_path / "prior.npz"))

    for asked in invented(20, seed=4):
        was, now = predictor.predict(asked.call), restored.predict(asked.call)
        assert now.p50_tokens == pytest.approx(was.p50_tokens, rel=0.05)
    assert restored.source == "predictor:trained"


def test_boosted_trees_without_lightgbm_are_refused_with_two_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prior(tmp_path / "prior.npz", boosted())

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "lightgbm" else importlib.util.find_spec(name, package)

    monkeypatch.setattr("penstock.predict.prior_file.find_spec", without)

    with pytest.raises(StateError, match=r"penstock\[boosted\].*--learner numpy"):
        read_prior(tmp_path / "prior.npz")


def test_a_damaged_booster_is_refused(tmp_path: Path) -> None:
    write_prior(tmp_path / "prior.npz", boosted())
    with ZipFile(tmp_path / "prior.npz") as old, ZipFile(tmp_path / "worse.npz", "w") as new:
        for name in old.namelist():
            if not name.startswith("medians_"):
                new.writestr(name, old.read(name))

    with pytest.raises(StateError, match=r"do not fit together.*medians_0"):
        read_prior(tmp_path / "worse.npz")


def test_a_prior_of_another_kind_is_refused_not_pickled(tmp_path: Path) -> None:
    class Mine:
        def log_tokens(self, call: CallFeatures) -> float:
            return 5.0

    with pytest.raises(StateError, match="Mine"):
        write_prior(tmp_path / "prior.npz", Mine())


def records(folder: Path) -> Path:
    rows = [
        {"prompt": a.prompt, "output_tokens": a.tokens, "route": "mail", "model": "m"}
        for a in invented(200, seed=1)
    ]
    file = folder / "records.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


@pytest.mark.parametrize("name", ["numpy", "boosted"])
def test_a_prior_from_the_command_line_can_be_evaluated(tmp_path: Path, name: str) -> None:
    if name == "boosted":
        pytest.importorskip("lightgbm")
    replies, prior, figures = str(records(tmp_path)), tmp_path / "p.npz", tmp_path / "figures.json"
    train = ["train", replies, "--learner", name, "--out", str(prior)]
    evaluate = ["evaluate", "--test", replies, "--prior", str(prior), "--json", str(figures)]
    for arguments in (train, evaluate):
        done = CliRunner().invoke(command, arguments)
        assert done.exit_code == 0, done.output

    assert json.loads(figures.read_text())["bucket_accuracy"] > 0.95


def test_boosted_trees_without_labels_are_refused(tmp_path: Path) -> None:
    out = tmp_path / "prior.npz"
    train = ["train", str(records(tmp_path)), "--unlabelled", "--learner", "boosted"]
    done = CliRunner().invoke(command, [*train, "--out", str(out)])

    assert done.exit_code == 2
    assert "--unlabelled" in done.output
    assert not out.exists()
