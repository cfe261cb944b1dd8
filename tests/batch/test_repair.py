"""After a power cut the answers on disk count, not what the checkpoint believes."""

import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from penstock.batch.lines import BatchError
from penstock.cli.group import group
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from penstock.wire.usage import Usage
from tests.batch.files import batch_file, checkpoint_of, ids_in, request

ANSWERED = 12
PROVIDER = {"model": "slots", "slots": 16, "tokens_per_s": 5000.0, "ttft_s": 0.001}


class Command:
    """`penstock batch` on a file of twelve requests, one of which the provider refuses."""

    def __init__(self, folder: Path, mock: MockServer) -> None:
        self.out = folder / "out.jsonl"
        self.errors = folder / "out.errors.jsonl"
        self.checkpoint = folder / "out.jsonl.checkpoint"
        self.mock = mock
        self.source = batch_file(folder, ANSWERED)
        bad = request(ANSWERED, max_tokens=-1)
        with self.source.open("a") as file:
            file.write(json.dumps(bad) + "\n")

    def run(self, *more: str) -> Result:
        words = ["batch", str(self.source), "--out", str(self.out), "--base-url", self.mock.url]
        return CliRunner().invoke(group, [*words, *more])

    def everything_is_there_once(self) -> None:
        assert sorted(ids_in(self.out)) == sorted(f"r{n}" for n in range(ANSWERED))
        assert ids_in(self.errors) == [f"r{ANSWERED}"]


@pytest.fixture
def done(tmp_path: Path) -> Iterator[Command]:
    with MockServer(MockSettings(provider=PROVIDER)) as mock:
        command = Command(tmp_path, mock)
        assert command.run().exit_code == 1
        command.everything_is_there_once()
        yield command


def sent(command: Command) -> int:
    return int(command.mock.stats()["requests"]["/v1/chat/completions"])


def test_a_shortened_file_is_refused_with_what_to_do_and_then_repaired(done: Command) -> None:
    before = sent(done)
    whole = done.out.read_bytes()
    half_of_the_tenth = len(b"".join(whole.splitlines(keepends=True)[:9])) + 30
    os.truncate(done.out, half_of_the_tenth)

    refused = done.run()
    assert refused.exit_code == 1
    assert f"out.jsonl has {half_of_the_tenth} bytes, but {len(whole)} bytes of whole lines" in (
        refused.output
    )
    assert "add --repair" in refused.output
    assert done.out.read_bytes() == whole[:half_of_the_tenth]
    assert sent(done) == before

    assert done.run("--repair").exit_code == 1  # one line failed, as ever
    done.everything_is_there_once()
    assert sent(done) == before + 3
    assert done.out.read_bytes().startswith(b"".join(whole.splitlines(keepends=True)[:9]))


def test_zeros_where_answers_were_are_noticed_and_repaired(done: Command) -> None:
    before = sent(done)
    length = done.out.stat().st_size
    keep = len(b"".join(done.out.read_bytes().splitlines(keepends=True)[:7]))
    os.truncate(done.out, keep)
    os.truncate(done.out, length)

    assert f"does not end a line at byte {length}" in done.run().output
    assert done.run("--repair").exit_code == 1
    done.everything_is_there_once()
    assert sent(done) == before + 5


def test_a_lost_file_of_failures_is_repaired_too(done: Command) -> None:
    before = sent(done)
    done.errors.unlink()

    assert "out.errors.jsonl has 0 bytes" in done.run().output
    assert done.run("--repair").exit_code == 1
    done.everything_is_there_once()
    assert sent(done) == before + 1


@pytest.mark.parametrize("damage", [b"", b"not a database, by no means" * 50])
def test_a_lost_or_damaged_checkpoint_is_made_anew_from_the_answers(
    done: Command, damage: bytes
) -> None:
    before = sent(done)
    totals = _totals(done)
    done.checkpoint.unlink()
    if damage:
        done.checkpoint.write_bytes(damage)
        assert "is no checkpoint of a batch" in done.run().output
        done.checkpoint.unlink()

    assert "--repair: it is made anew from the answers" in done.run().output
    assert done.run("--repair").exit_code == 1
    done.everything_is_there_once()
    assert sent(done) == before
    assert _totals(done) == totals


def test_a_repair_of_what_is_whole_changes_nothing(done: Command) -> None:
    before, files = sent(done), (done.out.read_bytes(), done.errors.read_bytes())

    assert done.run("--repair").exit_code == 1

    assert (done.out.read_bytes(), done.errors.read_bytes()) == files
    assert sent(done) == before


def test_answers_to_another_input_are_not_taken_for_ours(done: Command) -> None:
    done.checkpoint.unlink()
    done.source.write_text(done.source.read_text().replace('"r3"', '"other"'))
    answers = done.out.read_bytes()

    result = done.run("--repair")

    assert result.exit_code == 1
    assert "something else than custom_id='other' on line 4" in result.output
    assert done.out.read_bytes() == answers


def test_a_repair_needs_the_same_input_as_its_checkpoint(done: Command) -> None:
    done.source.write_text(done.source.read_text().replace('"hi"', '"ho"'))
    assert "is the checkpoint of another input" in done.run("--repair").output


def test_a_half_line_after_the_committed_ones_is_cut_off(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 2)
    with checkpoint_of(source) as store:
        store.succeeded(1, b'{"custom_id": "r0"}\n', Usage(1, 1))
    with (tmp_path / "out.jsonl").open("ab") as file:
        file.write(b'{"custom_id": "r1", "resp')

    with checkpoint_of(source) as store:
        assert (store.is_done(1), store.is_done(2)) == (True, False)
    assert ids_in(tmp_path / "out.jsonl") == ["r0"]


def test_an_input_that_ends_in_half_a_line_is_refused(tmp_path: Path) -> None:
    source = batch_file(tmp_path, 2)
    os.truncate(source, source.stat().st_size - 10)
    with pytest.raises(BatchError, match=r"line 2: no JSON object.*was the file cut short"):
        checkpoint_of(source)


def _totals(command: Command) -> tuple[int, int]:
    with closing(sqlite3.connect(command.checkpoint)) as database:
        row = database.execute("SELECT prompt_tokens, output_tokens FROM run").fetchone()
    return (int(row[0]), int(row[1]))


def test_a_repair_overwrites_no_file_of_something_else(done: Command) -> None:
    done.checkpoint.unlink()
    for file in (done.out, done.errors):
        answers = file.read_bytes()
        file.write_bytes(b"precious\n")
        result = done.run("--repair")
        assert result.exit_code == 1
        assert f"{file.name} holds no answers of a batch" in result.output
        assert file.read_bytes() == b"precious\n"
        file.write_bytes(answers)
    assert done.run("--repair").exit_code == 1
    done.everything_is_there_once()


@pytest.mark.parametrize("left", [b"\0" * 50, b'{"id":"ba', b'{"id":"batch_req_1","custom'])
def test_what_a_power_cut_leaves_of_the_first_answer_is_asked_again(
    done: Command, left: bytes
) -> None:
    done.out.write_bytes(left)
    assert done.run("--repair").exit_code == 1
    done.everything_is_there_once()


def test_an_input_by_another_name_is_not_written_over(done: Command) -> None:
    words, requests = ["--quiet"], done.source.read_bytes()
    done.out = done.source.with_name("other.jsonl")
    done.out.hardlink_to(done.source)
    for repair in ([], ["--repair"]):
        assert "is SOURCE too" in done.run(*words, *repair).output
    assert done.source.read_bytes() == requests


def test_answers_into_a_pipe_are_refused_as_nobody_keeps_them(done: Command) -> None:
    done.out = done.source.with_name("pipe")
    os.mkfifo(done.out)
    assert "is a pipe" in done.run().output


def test_a_checkpoint_that_nobody_keeps_is_refused(done: Command) -> None:
    assert "is no regular file" in done.run("--checkpoint", "/dev/null").output


@pytest.mark.parametrize("bytes_left", [0, 8192, 20_000])
def test_a_disk_that_is_full_from_the_start_is_a_message(done: Command, bytes_left: int) -> None:
    command = f"{sys.executable} -m penstock batch {done.source} --out {done.out}2 --quiet"
    limited = f"ulimit -f {bytes_left // 512}; exec {command} --base-url {done.mock.url}"
    ran = subprocess.run(["sh", "-c", limited], capture_output=True, text=True)
    assert ran.returncode == 1
    assert "is the disk full?" in ran.stderr
    assert "Traceback" not in ran.stderr
