from pathlib import Path

import pytest

from penstock.errors import ConfigError
from penstock.experiments.bench import Bench, Store
from penstock.experiments.pool import Here, Processes
from tests.experiments.specimens import Counting, bench, job

JOBS = [job(seed) for seed in range(1, 11)]


def test_a_study_that_was_stopped_makes_only_the_missing_runs(tmp_path: Path) -> None:
    bench(tmp_path).run(JOBS[:4], label="before Ctrl-C")
    workers = Counting()

    after = bench(tmp_path, workers).run(JOBS, label="after")

    assert workers.seen == JOBS[4:]
    assert len(after) == 10


def test_a_line_that_was_cut_off_is_made_again_and_harms_no_other(tmp_path: Path) -> None:
    whole = bench(tmp_path).run(JOBS[:3], label="")
    file = tmp_path / "runs.jsonl"
    file.write_text(file.read_text("utf-8")[:-30], "utf-8")
    workers = Counting()

    mended = Bench(Store(tmp_path), workers).run(JOBS[:3], label="")

    assert workers.seen == JOBS[2:3]
    assert mended == whole
    assert len(Store(tmp_path)) == 3


def test_the_same_job_asked_for_twice_is_made_once(tmp_path: Path) -> None:
    workers = Counting()

    bench(tmp_path, workers).run([job(1), job(1)], label="")

    assert workers.seen == [job(1)]


def test_two_processes_find_what_one_finds(tmp_path: Path) -> None:
    alone = bench(tmp_path / "one").run(JOBS, label="")
    workers = Processes(2)
    try:
        together = bench(tmp_path / "two", workers).run(JOBS, label="")
    finally:
        workers.close()

    assert together == alone


def test_progress_begins_with_what_is_kept_and_ends_with_all(tmp_path: Path) -> None:
    bench(tmp_path).run(JOBS[:2], label="")
    told: list[tuple[str, int, int]] = []

    Bench(
        Store(tmp_path), Counting(), lambda label, done, total: told.append((label, done, total))
    ).run(JOBS[:4], label="grid")

    assert told == [("grid", 2, 4), ("grid", 3, 4), ("grid", 4, 4)]


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("", "utf-8")

    with pytest.raises(ConfigError, match="file/below: cannot be written"):
        Store(tmp_path / "file" / "below")


def test_where_nothing_is_asked_for_no_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    bench = Bench(Store(tmp_path), Here(), lambda *progress: told.append(progress))

    assert bench.run([], label="perturbed worlds") == {}
    bench.run(JOBS[:1], label="experiments")

    assert told == [("experiments", 0, 1), ("experiments", 1, 1)]
