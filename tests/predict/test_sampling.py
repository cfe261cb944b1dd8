"""A training takes so many rows, spread evenly, whatever the file's length."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from penstock.cli.group import group
from penstock.predict.train.datasets import DatasetRow
from penstock.predict.train.sampling import spread


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
def test_a_training_on_more_rows_says_what_it_takes(tmp_path: Path) -> None:
    file = tmp_path / "many.jsonl"
    with file.open("w") as lines:
        for row in rows(20_500, prompts=20_500):
            fields = {"prompt": row.prompt, "output_tokens": row.output_tokens}
            lines.write(json.dumps(fields) + "\n")

    done = CliRunner().invoke(
        group, ["predict", "train", str(file), "--out", str(tmp_path / "prior.npz")]
    )

    assert done.exit_code == 0, done.output
    assert "20,500 rows, more than the 20,000 of a training: 20,000 are taken" in done.stderr
    assert "fitting to 20,000 replies" in done.stderr
    assert done.stdout.endswith("from 20,000 replies\n")
