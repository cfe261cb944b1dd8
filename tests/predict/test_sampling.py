"""A training takes so many rows, spread evenly, whatever the file's length."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.group import group
from penstock.predict.train.datasets import DatasetRow, spread


def rows(count: int, *, prompts: int) -> list[DatasetRow]:
    return [DatasetRow(f"prompt {n % prompts}", float(n), None, "", None) for n in range(count)]


def test_few_rows_are_all_taken_in_their_order() -> None:
    few = rows(100, prompts=7)

    assert spread(few, 100, by="row").rows == few
    assert spread(few, 7, by="prompt").rows == few
    assert spread(few, 100, by="row").whole


def test_of_many_rows_the_same_ones_are_taken_from_every_part() -> None:
    many = rows(10_000, prompts=10_000)

    sample = spread(many, 1000, by="row")

    assert (len(sample.rows), sample.seen, sample.whole) == (1000, 10_000, False)
    assert sample.rows == spread(iter(many), 1000, by="row").rows
    numbers = [row.output_tokens for row in sample.rows]
    assert numbers == sorted(numbers)
    for part in range(10):
        held = sum(part * 1000 <= number < (part + 1) * 1000 for number in numbers)
        assert 60 <= held <= 140


def test_by_prompt_all_rows_of_a_prompt_stay_together() -> None:
    many = rows(3000, prompts=300)

    sample = spread(many, 50, by="prompt")

    taken = {row.prompt for row in sample.rows}
    assert len(taken) == 50
    assert sample.rows == [row for row in many if row.prompt in taken]


@pytest.mark.slow
def test_a_training_on_more_rows_says_what_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penstock.predict.train.datasets.TRAINED_MAX", 2_100)
    file = tmp_path / "many.jsonl"
    with file.open("w") as lines:
        for row in rows(2_200, prompts=2_200):
            fields = {"prompt": row.prompt, "output_tokens": row.output_tokens}
            lines.write(json.dumps(fields) + "\n")

    done = CliRunner().invoke(
        group, ["predict", "train", str(file), "--out", str(tmp_path / "prior.npz")]
    )

    assert done.exit_code == 0, done.output
    assert "2,200 rows, more than the 2,100 of a training: 2,100 are taken" in done.stderr
    assert "fitting to 2,100 replies" in done.stderr
    assert done.stdout.endswith("from 2,100 replies\n")
