"""Killed at any moment, a batch loses no line and writes none twice."""

import asyncio
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from penstock.batch.lines import BatchLine
from penstock.batch.reply import BatchReply
from penstock.batch.runner import Batch
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from penstock.wire.usage import Usage
from tests.batch.files import batch_file, checkpoint_of, ids_in
from tests.conftest import LONG


def run_in_child(source: Path, sent: Path) -> int:
    """Fork a child that works on the batch, noting what it sends; return its process id."""
    child = os.fork()
    if child:
        return child
    try:
        note = os.open(sent, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

        async def send(line: BatchLine, *, deadline_s: float | None) -> BatchReply:
            os.write(note, line.custom_id.encode() + b"\n")
            await asyncio.sleep(0.001)
            return BatchReply(200, "q", {"n": line.number}, Usage(1, 1))

        async def main() -> None:
            with checkpoint_of(source) as store:
                await Batch(source, store, send, ahead=4).run()

        asyncio.run(main())
    finally:
        os._exit(0)


def size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_kills(tmp_path: Path) -> None:
    """Each after a few more calls, so that all strike at work; a hundred without PENSTOCK_LONG."""
    kills = 1000 if LONG else 100
    chance = random.Random(7)
    source = batch_file(tmp_path, 80 * kills)
    sent = tmp_path / "sent"
    for _ in range(kills):
        goal = size(sent) + chance.randrange(200)  # bytes: some six to a call
        child = run_in_child(source, sent)
        while size(sent) <= goal:
            time.sleep(0.0005)
        os.kill(child, signal.SIGKILL)
        assert os.WIFSIGNALED(os.waitpid(child, 0)[1]), "it was done before it was killed"
    os.waitpid(run_in_child(source, sent), 0)

    answers = Counter(ids_in(tmp_path / "out.jsonl"))
    assert len(answers) == 80 * kills
    assert set(answers.values()) == {1}
    calls = Counter(sent.read_text().split())
    assert 0 < sum(calls.values()) - len(calls) <= 4 * kills


def test_the_command_goes_on_after_kills(tmp_path: Path) -> None:
    provider = {"model": "slots", "slots": 16, "tokens_per_s": 5000.0, "ttft_s": 0.005}
    source = batch_file(tmp_path, 300)
    out = tmp_path / "out.jsonl"
    with MockServer(MockSettings(provider=provider)) as mock:
        words = [sys.executable, "-m", "penstock.cli.main", "batch", str(source)]
        words += ["--out", str(out), "--quiet", "--base-url", mock.url]
        for _ in range(3):
            goal = size(out) + 1
            process = subprocess.Popen(words)
            while size(out) < goal:
                time.sleep(0.001)
            process.kill()
            assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
        assert subprocess.run(words, check=False, timeout=100).returncode == 0
    assert sorted(ids_in(out)) == sorted(f"r{n}" for n in range(300))
    assert (tmp_path / "out.errors.jsonl").read_text() == ""


def test_a_first_interrupt_drains_and_the_next_run_finishes(tmp_path: Path) -> None:
    provider = {"model": "slots", "slots": 4, "tokens_per_s": 2000.0, "ttft_s": 0.05}
    source = batch_file(tmp_path, 200)
    out = tmp_path / "out.jsonl"
    with MockServer(MockSettings(provider=provider)) as mock:
        words = [sys.executable, "-m", "penstock.cli.main", "batch", str(source)]
        words += ["--out", str(out), "--base-url", mock.url]
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        while not (out.exists() and out.stat().st_size):
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=60)
        assert process.returncode == 130
        assert "run the same command to go on" in said
        done = len(ids_in(out))
        assert 0 < done < 200
        assert subprocess.run(words, check=False, timeout=100).returncode == 0
    assert sorted(ids_in(out)) == sorted(f"r{n}" for n in range(200))
