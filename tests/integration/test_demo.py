"""The demo: an exact load, an honest verdict, and nothing left behind."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from penstock.cli.group import group
from penstock.experiments.demo.arm import KINDS, LOAD, SLOTS, plan
from penstock.experiments.demo.run import ARMS, SAMPLE, plan_of_replies, replies_of, run
from penstock.experiments.demo.verdict import KeptShare, judge, rows
from penstock.metrics import RequestOutcome, RequestRecord, RunMetrics, measure
from tests.browsers import assert_readable
from tests.child_processes import children_of


@given(seconds=st.floats(2, 30), seed=st.integers(0, 1000))
def test_any_plan_offers_exactly_the_stated_load_with_the_whole_mix(
    seconds: float, seed: int
) -> None:
    shots = plan(seconds, seed=seed)

    work_s = sum(shot.service_s for shot in shots)
    assert work_s >= SLOTS * seconds * LOAD
    assert shots == sorted(shots, key=lambda shot: shot.at_s)
    assert shots[-1].at_s <= work_s / (SLOTS * LOAD)
    for place, kind in enumerate(KINDS):
        bucket = ("short", "medium", "long", "xlong")[place]
        assert sum(s.bucket == bucket for s in shots) * 20 == kind.in_twenty * len(shots)
    for shot in shots:
        assert shot.max_tokens is not None
        assert shot.output_tokens <= shot.max_tokens
        assert shot.service_s < shot.deadline_s  # alone, each of them would be in time
    assert shots == plan(seconds, seed=seed)


def _metrics(in_time: int, latency_s: float) -> RunMetrics:
    late = [RequestRecord("short", 0.0, 0.1, latency_s, RequestOutcome.COMPLETED)] * (10 - in_time)
    good = [RequestRecord("short", 0.0, latency_s, latency_s, RequestOutcome.COMPLETED)] * in_time
    return measure(good + late)


def test_the_verdict_follows_the_figures() -> None:
    good = judge(_metrics(5, 2.0), _metrics(9, 0.4))
    assert good.kept
    assert good.lines()[0].startswith("Deadlines missed: 0.20 of those")
    assert "0.20 of that" in good.lines()[1]
    assert not judge(_metrics(5, 2.0), _metrics(7, 0.4)).kept
    assert not judge(_metrics(5, 2.0), _metrics(9, 0.6)).kept


def test_a_load_too_short_for_a_queue_to_grow_is_promised_nothing() -> None:
    short = judge(_metrics(9, 0.5), _metrics(9, 0.4), seconds=4.0)
    assert short.kept
    assert "(from 9 s on: at most 0.5)" in short.lines()[0]
    assert KeptShare.of(_metrics(5, 0.4), _metrics(9, 0.4), seconds=4.0).kept


def test_the_table_counts_the_calls_that_got_no_answer() -> None:
    ends = [
        RequestOutcome.COMPLETED,
        RequestOutcome.SHED,
        RequestOutcome.CANCELLED,
        RequestOutcome.FAILED,
    ]
    some = measure([RequestRecord("short", 0.0, 1.0, 0.5, end) for end in ends])
    figures = dict(rows({"direct": _metrics(9, 0.4), "penstock": some}))
    assert figures["unanswered"] == ["none", "2"]


def test_a_prior_that_is_not_there_is_said_before_the_load() -> None:
    result = CliRunner().invoke(group, ["demo", "--prompts", "sample", "--prior", "nowhere.npz"])
    assert result.exit_code == 2
    assert "--prior: 'nowhere.npz' must be shipped, none or a file" in result.output
    assert "hidden slots" not in result.output


@pytest.mark.parametrize("seed", [1, 2])
def test_real_prompts_offer_the_stated_load_and_their_deadlines_give_no_length_away(
    seed: int,
) -> None:
    replies = replies_of(SAMPLE)
    shots = plan_of_replies(replies, 9.0, seed=seed)

    work_s = sum(shot.service_s for shot in shots)
    assert work_s >= SLOTS * 9.0 * LOAD
    assert shots[-1].at_s <= work_s / (SLOTS * LOAD)
    assert {(s.prompt, s.output_tokens) for s in shots} <= {
        (r.prompt, r.output_tokens) for r in replies
    }
    # All that could be in time at their route's deadline have that one, whatever their length.
    for route in {shot.route for shot in shots}:
        usual = min(shot.deadline_s for shot in shots if shot.route == route)
        odd = [s for s in shots if s.route == route and s.deadline_s != usual]
        assert all(1.5 * shot.service_s > usual for shot in odd)
        assert len(odd) <= 0.1 * sum(shot.route == route for shot in shots) + 1
    assert shots == plan_of_replies(replies, 9.0, seed=seed)


def test_what_predictions_keep_is_measured_against_lengths_known_beforehand() -> None:
    assert KeptShare.of(_metrics(9, 0.4), _metrics(9, 0.4)).kept
    short_of_it = KeptShare.of(_metrics(8, 0.4), _metrics(9, 0.4))
    assert not short_of_it.kept
    assert "88.9% of those" in short_of_it.lines()[0]
    assert short_of_it.lines()[0].startswith("Deadlines met")


@pytest.mark.slow
def test_a_short_demo_with_real_prompts_has_an_oracle_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "demo.html"
    console = Console(record=True, width=100)

    verdict = run(seconds=1.0, seed=1, out=out, console=console, prompts=SAMPLE)

    # How many were in time is the machine's doing too: the share itself is `make demo`'s to tell.
    assert isinstance(verdict, KeptShare)
    assert 0 < verdict.satisfaction <= 1
    assert 0 < verdict.oracle <= 1
    assert "oracle" in out.read_text()
    assert "known beforehand" in console.export_text()


@pytest.mark.slow
def test_a_short_demo_plays_all_arms_and_writes_its_report(tmp_path: Path) -> None:
    out = tmp_path / "demo.html"
    console = Console(record=True, width=80)

    run(seconds=1.0, seed=1, out=out, console=console)

    said = console.export_text()
    greeting = said.partition("\n\n")[0].splitlines()
    assert len(greeting) > 1
    assert max(map(len, greeting)) <= 80
    assert " ".join(map(str.strip, greeting)).startswith("A provider with 8 hidden slots gets ")
    for word in (*ARMS, "short P95", "deadline satisfaction", "useful goodput", "from 9 s on"):
        assert word in said
    report = out.read_text()
    assert report.count("<svg") == 2
    assert_readable(out)
    assert not re.search(r"""(src|href)=["']https?:""", report)  # one file, nothing fetched


def _listens(process: int) -> bool:
    """Say whether the process holds a socket: the provider is up then."""
    try:
        return any(
            str(entry.readlink()).startswith("socket:")
            for entry in Path(f"/proc/{process}/fd").iterdir()
        )
    except OSError:
        return False


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="looks for children in /proc")
def test_ctrl_c_ends_it_quietly_and_takes_its_children_along(
    ending: signal.Signals, tmp_path: Path
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock.cli.main", "demo", "--seconds", "60"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    )
    children: list[int] = []
    try:
        while not any(map(_listens, children)):
            assert process.poll() is None, "the demo started nothing"
            time.sleep(0.02)
            children = children_of(process.pid)
        os.kill(process.pid, ending)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()

    assert process.returncode != 0
    assert b"Traceback" not in said
    assert not [child for child in children if Path(f"/proc/{child}").exists()]
