"""A result that could not be written is refused before it is worked for, by every command."""

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.cli.group import group
from tests.batch.files import batch_file

SCENARIO = """
[provider]
model = "slots"
[workload]
requests = 10
rate_per_s = 3.0
[policies.default]
"""
REPLY = '{"prompt": "Hello?", "output_tokens": 7}\n'
WRITERS = [
    "simulate scenario.toml --json {}",
    "reproduce noise --json {}",
    "reproduce noise --out folder --json {}",
    "demo --out {}",
    "batch in.jsonl --base-url http://127.0.0.1:9/v1 --out {}",
    "batch in.jsonl --base-url http://127.0.0.1:9/v1 --out out.jsonl --errors {}",
    "batch in.jsonl --base-url http://127.0.0.1:9/v1 --out out.jsonl --checkpoint {}",
    "predict train replies.jsonl --out {}",
    "predict evaluate --test replies.jsonl --json {}",
    "predict report replies.jsonl --json {}",
    "predict report replies.jsonl --out {}",
]
"""Every command that writes a file, with each option that names one."""


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Result]:
    monkeypatch.chdir(tmp_path)
    Path("scenario.toml").write_text(SCENARIO, "utf-8")
    Path("replies.jsonl").write_text(REPLY, "utf-8")
    Path("folder.png").mkdir()
    batch_file(tmp_path, 1)
    return lambda words: CliRunner().invoke(group, words.split())


def everything_in(folder: Path) -> dict[str, bytes | None]:
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in folder.rglob("*")
    }


@pytest.mark.parametrize("words", WRITERS)
@pytest.mark.parametrize(
    ("place", "likely"),
    [
        ("replies.jsonl/out.png", "a part of the path that should be a folder is a file"),
        ("folder.png", "a folder stands there; name a file in it"),
        ("/proc/out.png", "is the path mistyped?"),
        ("x" * 300 + ".png", "file systems take names of up to 255 bytes"),
    ],
)
def test_what_cannot_be_written_is_refused_before_the_run_and_nothing_is_left(
    run: Callable[[str], Result], tmp_path: Path, words: str, place: str, likely: str
) -> None:
    before = everything_in(tmp_path)

    result = run(words.format(place))

    assert result.exit_code == 2
    option = words.format("").split()[-1]
    assert f"Invalid value for '{option}'" in result.output
    said = " ".join(result.output.split())
    assert f"{place!r} cannot be written (" in said
    assert likely in said
    assert everything_in(tmp_path) == before


@pytest.mark.parametrize(
    "words",
    [
        "simulate scenario.toml --json scenario.toml",
        "batch in.jsonl --out in.jsonl",
        "batch in.jsonl --out a.jsonl --errors ./a.jsonl",
        "batch in.jsonl --out a.jsonl --checkpoint a.jsonl",
        "demo --prompts replies.jsonl --out replies.jsonl",
        "predict train replies.jsonl --out replies.jsonl",
        "predict evaluate --test replies.jsonl --json replies.jsonl",
        "predict report replies.jsonl --json replies.jsonl",
        "predict report replies.jsonl --out a.png --json a.png",
    ],
)
def test_no_file_is_written_over_another_of_the_same_command(
    run: Callable[[str], Result], tmp_path: Path, words: str
) -> None:
    before = everything_in(tmp_path)

    result = run(words)

    assert result.exit_code == 2
    assert "one would be written over the other" in " ".join(result.output.split())
    assert everything_in(tmp_path) == before


def test_a_folder_that_is_not_there_is_made_when_there_is_something_to_write(
    run: Callable[[str], Result], tmp_path: Path
) -> None:
    assert run("simulate scenario.toml --json new/er/out.json").exit_code == 0
    assert run("predict evaluate --test replies.jsonl --json new/est/out.json").exit_code == 0

    assert (tmp_path / "new" / "er" / "out.json").stat().st_size
    assert (tmp_path / "new" / "est" / "out.json").stat().st_size


def test_a_device_takes_results_as_ever(run: Callable[[str], Result]) -> None:
    assert run("simulate scenario.toml --json /dev/null").exit_code == 0


def test_a_disk_that_fills_up_meanwhile_is_one_line(run: Callable[[str], Result]) -> None:
    result = run("simulate scenario.toml --json /dev/full")

    assert result.exit_code == 1
    assert "'/dev/full' cannot be written (No space left on device): the disk is full" in (
        " ".join(result.output.split())
    )


def test_a_plot_of_an_unknown_kind_is_refused(run: Callable[[str], Result]) -> None:
    result = run("predict report replies.jsonl --out plot.doc")

    assert result.exit_code == 2
    assert "must end in .png, .svg, .pdf" in " ".join(result.output.split())
