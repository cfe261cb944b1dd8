"""A trained prior as a file: says the same after loading, or why it cannot be used."""

import importlib.util
import json
from importlib.machinery import ModuleSpec
from pathlib import Path
from zipfile import ZipFile

import pytest
from click.testing import CliRunner

from penstock.cli.predict import command
from penstock.predict import CallFeatures, OnlinePredictor, StateError
from penstock.predict.archive import pack, unpack
from penstock.predict.online.predictor import OtherPriorError
from penstock.predict.prior.file import read_prior, shipped_prior, write_prior
from penstock.predict.prior.folds import fold_of, read_folds, shipped_folds, write_folds
from penstock.predict.prior.model import LogTokens
from penstock.predict.train.datasets import Lesson, RecordedReply, lesson
from penstock.predict.train.shared import learner, train_folds
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
    predictor = OnlinePredictor.with_prior(read_prior(tmp_path / "prior.npz"))
    for asked in invented(60, seed=3, scale=2.0):
        predictor.learn(asked.call, asked.tokens)
    predictor.save(tmp_path / "state.npz")

    restored = OnlinePredictor.load(
        tmp_path / "state.npz", prior=read_prior(tmp_path / "prior.npz")
    )

    for asked in invented(20, seed=4):
        was, now = predictor.predict(asked.call), restored.predict(asked.call)
        assert now.p50_tokens == pytest.approx(was.p50_tokens, rel=0.05)
    assert restored.source == "predictor:trained"


@pytest.mark.parametrize("kind", ["numpy", "boosted"])
def test_what_was_learned_on_one_prior_is_refused_with_another(tmp_path: Path, kind: str) -> None:
    if kind == "boosted":
        pytest.importorskip("lightgbm")
    for name, scale in (("one", 1.0), ("other", 3.0)):
        told = [lesson(asked.call, asked.tokens * scale) for asked in invented(60, seed=1)]
        write_prior(tmp_path / name, learner(kind, wider=None)(told))
    one, other = read_prior(tmp_path / "one"), read_prior(tmp_path / "other")
    OnlinePredictor.with_prior(one).save(tmp_path / "state")

    same = OnlinePredictor.load(tmp_path / "state", prior=read_prior(tmp_path / "one"))
    assert same.source == "predictor:trained"
    with pytest.raises(OtherPriorError, match="of another one than this"):
        OnlinePredictor.load(tmp_path / "state", prior=other)
    with pytest.raises(OtherPriorError, match="of a prior of your own, not of no prior"):
        OnlinePredictor.load(tmp_path / "state")


def test_a_state_of_another_version_is_refused_with_both_versions_and_what_to_do(
    tmp_path: Path,
) -> None:
    state = tmp_path / "state"
    OnlinePredictor.cold().save(state)
    arrays, meta = unpack(state, kind="penstock predictor state", version=2)
    state.write_bytes(pack(arrays, meta | {"version": 1}))

    with pytest.raises(StateError, match=r"state', 1\), this penstock reads .*2\).*Remove it"):
        OnlinePredictor.load(state)


def test_boosted_trees_without_lightgbm_are_refused_with_two_ways_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_prior(tmp_path / "prior.npz", boosted())

    def without(name: str, package: str | None = None) -> ModuleSpec | None:
        return None if name == "lightgbm" else importlib.util.find_spec(name, package)

    monkeypatch.setattr("penstock.predict.prior.file.find_spec", without)

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


def test_boosted_trees_told_of_fold_priors_say_the_same_after_loading(tmp_path: Path) -> None:
    pytest.importorskip("lightgbm")
    prior = learner("boosted", wider=None, folds=shipped_folds())(lessons())
    write_prior(tmp_path / "prior.npz", prior)

    restored = read_prior(tmp_path / "prior.npz")

    for asked in invented(40, seed=2):
        assert restored.log_tokens(asked.call) == prior.log_tokens(asked.call)


def test_a_prior_trained_beside_other_fold_priors_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("lightgbm")
    others = replies(200)
    with pytest.raises(StateError, match="cannot be saved"):
        write_prior(
            tmp_path / "prior.npz",
            learner("boosted", wider=None, folds=train_folds(others))(lessons()),
        )
    write_prior(
        tmp_path / "prior.npz", learner("boosted", wider=None, folds=shipped_folds())(lessons())
    )
    write_folds(tmp_path / "folds.npz", train_folds(others))
    newer = read_folds(tmp_path / "folds.npz")
    monkeypatch.setattr("penstock.predict.prior.file.shipped_folds", lambda: newer)

    with pytest.raises(StateError, match=r"shipped other fold priors; train it again"):
        read_prior(tmp_path / "prior.npz")


def replies(count: int) -> list[RecordedReply]:
    return [
        RecordedReply(asked.call, asked.prompt, asked.tokens, 0.0)
        for asked in invented(count, seed=5)
    ]


def test_a_call_is_told_by_the_prior_that_has_not_seen_its_prompt() -> None:
    folds = train_folds(replies(400))
    for asked in invented(40, seed=5):
        said = [prior.log_tokens(asked.call) for prior in folds.priors]
        assert folds.log_tokens(asked.call) == said[fold_of(asked.call)]
    # Two prompts per topic: every prior has seen the other essays, so all know an essay is long.
    essay = CallFeatures.from_prompt("Write an essay about tides", model="m", route="mail")
    word = CallFeatures.from_prompt("Name one word for tides", model="m", route="mail")
    assert folds.log_tokens(essay) > folds.log_tokens(word) + 1.0


def test_fold_priors_say_the_same_after_loading(tmp_path: Path) -> None:
    folds = train_folds(replies(400))
    write_folds(tmp_path / "folds.npz", folds)

    restored = read_folds(tmp_path / "folds.npz")

    for asked in invented(40, seed=6):
        assert restored.log_tokens(asked.call) == pytest.approx(
            folds.log_tokens(asked.call), abs=2e-3
        )
    (tmp_path / "folds.npz").write_bytes((tmp_path / "folds.npz").read_bytes()[:-9])
    with pytest.raises(StateError, match="was it cut short"):
        read_folds(tmp_path / "folds.npz")


def test_fold_priors_from_the_command_line_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    made = [tmp_path / "one.npz", tmp_path / "two.npz"]
    for out in made:
        train = ["train", str(records(tmp_path)), "--unlabelled", "--folds", "--out", str(out)]
        done = CliRunner().invoke(command, train)
        assert done.exit_code == 0, done.output

    assert made[0].read_bytes() == made[1].read_bytes()
    labelled = ["train", str(records(tmp_path)), "--folds", "--out", str(tmp_path / "no.npz")]
    done = CliRunner().invoke(command, labelled)
    assert (done.exit_code, "--unlabelled" in done.output) == (2, True)


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
