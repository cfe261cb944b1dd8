"""The decision log can be read again, whole, by run, and replayed to the same decisions."""

import errno
import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    DriverStalled,
    Event,
    Failed,
    FirstToken,
    LimitsSeen,
    Reconfigured,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.settings import Limits, PolicySpec, Settings, Stack, UpstreamSettings
from penstock.log.format import decode, line_of
from penstock.log.reader import LogError, log_files, read_log, replayed
from penstock.log.writer import DecisionLog
from penstock.policies.registry import build_scheduler
from penstock.private_file import FileInUse, NotPrivate
from penstock.wire import jsonio
from tests.runtime.window import why

SETTINGS = Settings(
    classes=(
        TrafficClass("interactive", weight=3.0, deadline_s=2.0),
        TrafficClass("batch", queue_limit=50),
    ),
    upstreams=(UpstreamSettings("mill", capacity=PolicySpec("fixed", {"window": 2})),),
    stack=Stack(overload=PolicySpec("always_admit")),
    sticky=True,
)


FULL = os.strerror(errno.ENOSPC)


def request(number: int, at: float = 0.0, **more: object) -> Request:
    estimate = TokenEstimate(30.0, 60.0)
    values = {"tenant": "t", "model": "m", "prompt_tokens": 9} | more
    return Request(number, "interactive", at, estimate, **values)  # type: ignore[arg-type]


@pytest.fixture
def log(tmp_path: Path) -> Iterator[DecisionLog]:
    log = DecisionLog(
        tmp_path / "decisions.jsonl", run="run", now=0.0, settings=SETTINGS, wall=lambda: 1e9
    )
    yield log
    log.close()


def test_what_was_written_is_read_again(log: DecisionLog) -> None:
    first = request(1, deadline=5.0)
    events: list[tuple[float, Event | Action]] = [
        (0.0, Arrived(first)),
        (0.25, Dispatch(first, "mill", why(0.25, first))),
        (0.5, FirstToken(1)),
        (1.0, LimitsSeen("mill", limit_requests=60.0)),
        (2.0, Completed(1, 42, 9)),
    ]
    for now, what in events:
        (log.action if isinstance(what, Dispatch) else log.event)(now, what)  # type: ignore[arg-type]
    log.flush()

    records = list(read_log(log.path))
    assert [(r.now, r.what) for r in records] == events
    assert [r.id for r in records] == ["run-1", "run-1", "run-1", None, "run-1"]
    assert records[0].header.settings == SETTINGS
    assert records[0].header.started_unix_s == 1e9


def test_the_outcome_holds_the_facts_beside_each_other(log: DecisionLog) -> None:
    first = request(1, deadline=5.0)
    log.event(0.0, Arrived(first))
    log.action(0.25, Dispatch(first, "mill", why(0.25, first)))
    log.event(0.5, FirstToken(1))
    log.event(2.0, Completed(1, 42, 9))
    log.flush()

    outcome = list(read_log(log.path))[-1].outcome
    assert outcome is not None
    assert (outcome.result, outcome.output_tokens, outcome.bucket) == ("completed", 42, "short")
    assert (outcome.queued_s, outcome.first_token_s, outcome.latency_s) == (0.25, 0.5, 2.0)
    assert (outcome.upstream, outcome.attempts, outcome.in_time) == ("mill", 1, True)
    assert (outcome.tenant, outcome.model, outcome.prompt_tokens) == ("t", "m", 9)


@pytest.mark.parametrize(
    ("end", "result"),
    [
        (Cancelled(1), "cancelled"),
        (Failed(1), "failed"),
        (Reject(request(1), "shed", 3.0, why(1.0, request(1))), "refused"),
    ],
)
def test_every_end_has_an_outcome(log: DecisionLog, end: Event | Action, result: str) -> None:
    log.event(0.0, Arrived(request(1)))
    (log.action if isinstance(end, Reject) else log.event)(1.0, end)  # type: ignore[arg-type]
    log.flush()

    outcome = list(read_log(log.path))[-1].outcome
    assert outcome is not None
    assert (outcome.result, outcome.latency_s, outcome.in_time) == (result, 1.0, None)


def test_a_session_is_logged_as_a_digest_only(log: DecisionLog) -> None:
    log.event(0.0, Arrived(request(1, session="alice@example.com")))
    log.event(0.0, Arrived(request(2, session="alice@example.com")))
    log.flush()

    assert b"alice" not in log.path.read_bytes()
    one, two = (r.what.request for r in read_log(log.path) if isinstance(r.what, Arrived))
    assert one.session == two.session != ""


def test_after_a_reload_the_next_file_begins_with_the_new_settings(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    log = DecisionLog(path, run="run", now=0.0, settings=SETTINGS, max_bytes=3_000, files=1)
    log.event(1.0, Reconfigured(replace(SETTINGS, sticky=False)))
    for number in range(20):
        log.event(2.0, Arrived(request(number)))
    log.close()
    assert next(read_log(path)).header.settings == replace(SETTINGS, sticky=False)


def test_the_log_rotates_and_reads_as_one(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "d.jsonl", run="run", now=0.0, max_bytes=5_000, files=3)
    for number in range(1, 101):
        log.event(float(number), Arrived(request(number)))
    log.close()

    files = log_files(log.path)
    assert [f.name for f in files] == ["d.jsonl.2", "d.jsonl.1", "d.jsonl"]
    assert all(f.stat().st_size <= 5_000 for f in files)
    numbers = [r.request_id for r in read_log(log.path)]
    assert numbers == list(range(101 - len(numbers), 101))


def test_a_second_run_goes_on_in_the_same_file(tmp_path: Path) -> None:
    for run in ("one", "two"):
        log = DecisionLog(tmp_path / "d.jsonl", run=run, now=0.0)
        log.event(1.0, Arrived(request(1)))
        log.close()

    assert [r.id for r in read_log(tmp_path / "d.jsonl")] == ["one-1", "two-1"]


def test_a_line_cut_by_a_crash_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    log = DecisionLog(path, run="one", now=0.0)
    log.event(1.0, Arrived(request(1)))
    log.event(2.0, Arrived(request(2)))
    log.close()
    path.write_bytes(path.read_bytes()[:-30])
    assert [r.id for r in read_log(path)] == ["one-1"]

    log = DecisionLog(path, run="two", now=0.0)
    log.event(1.0, Arrived(request(1)))
    log.close()
    assert [r.id for r in read_log(path)] == ["one-1", "two-1"]


def test_a_program_that_just_ends_keeps_its_last_lines(tmp_path: Path) -> None:
    program = (
        "import sys; from penstock.core.events import Woke; "
        "from penstock.log.writer import DecisionLog; "
        "log = DecisionLog(sys.argv[1], run='r', now=0.0, flush_every_s=3600.0); "
        "log.event(0.0, Woke())"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "d")], check=True)
    assert [r.what for r in read_log(tmp_path / "d")] == [Woke()]


def test_lines_beyond_the_limit_are_dropped_and_counted(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path / "d", run="r", now=0.0, queue_limit=10, flush_every_s=3600.0)
    for _ in range(25):
        log.event(0.0, Woke())
    assert log.lost == 15
    log.close()
    lines = [json.loads(line) for line in log.path.read_text().splitlines()]
    assert {"lost": 15} in lines
    assert len(list(read_log(log.path))) == 10


def test_a_disk_that_fails_and_works_again_costs_lines_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = [0.0]
    path = tmp_path / "decisions.jsonl"
    log = DecisionLog(path, run="run", now=0.0, flush_every_s=1e6, monotonic=lambda: clock[0])

    def note(at: float) -> None:
        clock[0] = at
        log.event(at, Woke())
        log.flush()

    note(0.0)
    path.unlink()
    path.symlink_to("/dev/full")
    note(1.0)
    note(1.5)  # not tried yet
    assert (log.failing, log.lost) == (True, 2)
    path.unlink()
    note(1.9)
    assert (log.failing, log.lost) == (True, 3)
    note(2.5)
    assert not log.failing
    log.close()

    assert [r.message for r in caplog.records] == [
        f"the decision log {path} cannot be written ({FULL}): lines are lost until it can",
        f"the decision log {path} is written again; 3 lines are missing in all",
    ]
    assert [record.now for record in read_log(path)] == [2.5]
    assert b'{"lost":3}' in path.read_bytes()


def test_a_folder_that_goes_and_comes_is_found_again(tmp_path: Path) -> None:
    folder = tmp_path / "logs"
    log = DecisionLog(folder / "d.jsonl", run="run", now=0.0, flush_every_s=1e6)
    folder.rename(tmp_path / "away")
    log.event(1.0, Woke())
    log.flush()
    log.close()
    assert [record.now for record in read_log(folder / "d.jsonl")] == [1.0]


@pytest.mark.parametrize("told", [True, False])
def test_whoever_moves_the_file_away_gets_a_new_one(tmp_path: Path, told: bool) -> None:
    path, moved = tmp_path / "d.jsonl", tmp_path / "d.jsonl-yesterday"
    log = DecisionLog(path, run="run", now=0.0, flush_every_s=1e6)
    log.event(1.0, Woke())
    log.flush()
    path.rename(moved)
    if told:
        log.reopen()
    log.event(2.0, Woke())
    log.flush()
    log.close()
    assert [record.now for record in read_log(moved)] == [1.0]
    assert [record.now for record in read_log(path)] == [2.0]


def test_whoever_truncates_the_file_finds_a_header_before_what_follows(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    log = DecisionLog(path, run="run", now=0.0, flush_every_s=1e6)
    for at in (1.0, 2.0):
        log.event(at, Woke())
    log.flush()
    with path.open("r+b") as file:
        file.truncate(0)
    log.event(3.0, Woke())
    log.flush()
    log.close()
    assert [record.now for record in read_log(path)] == [3.0]


def test_the_file_is_its_owners_alone_and_one_writers(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "d.jsonl"
    log = DecisionLog(path, run="run", now=0.0)
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    with pytest.raises(FileInUse, match="is written by another process"):
        DecisionLog(path, run="other", now=0.0)
    log.close()
    DecisionLog(path, run="other", now=0.0).close()
    path.chmod(0o666)
    with pytest.raises(NotPrivate, match="may be written by everybody"):
        DecisionLog(path, run="third", now=0.0)


def test_a_folder_in_which_everybody_may_swap_files_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    told = rf"mode 0777.*chmod o-w {tmp_path}, or name a folder inside"
    with pytest.raises(NotPrivate, match=told):
        DecisionLog(tmp_path / "d.jsonl", run="run", now=0.0)
    assert list(tmp_path.iterdir()) == []
    DecisionLog(tmp_path / "own" / "d.jsonl", run="run", now=0.0).close()
    tmp_path.chmod(0o1777)  # as /tmp is: nobody takes another's file away
    DecisionLog(tmp_path / "d.jsonl", run="run", now=0.0).close()


@pytest.mark.timeout(60)
def test_a_fifo_that_nobody_reads_is_no_file_and_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "d.jsonl"
    os.mkfifo(path)
    with pytest.raises(OSError, match="No such device"):
        DecisionLog(path, run="run", now=0.0)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"now":1,"event":"woke"}\n', "d:1: the file does not start with a header"),
        ("hello\n", "d:1 is no JSON object"),
        ('{"penstock_decision_log":9}\n', "d:1: version 9"),
    ],
)
def test_a_file_that_is_no_log_is_refused_with_its_line(
    tmp_path: Path, text: str, says: str
) -> None:
    (tmp_path / "d").write_text(text)
    with pytest.raises(LogError, match=says):
        list(read_log(tmp_path / "d"))


@pytest.mark.parametrize("cap", [{}, [], True])
def test_a_field_of_another_type_is_refused_with_its_line(log: DecisionLog, cap: object) -> None:
    log.event(0.0, Arrived(request(1)))
    log.flush()
    line = log.path.read_bytes().replace(b'"cap_tokens":null', b'"cap_tokens":' + jsonio.dumps(cap))
    log.path.write_bytes(line)
    with pytest.raises(LogError, match=r":2: .* a text or a number was expected"):
        list(read_log(log.path))


def test_a_header_with_a_field_of_another_type_is_refused_with_its_line(log: DecisionLog) -> None:
    log.flush()
    log.path.write_bytes(log.path.read_bytes().replace(b'"options":{}', b'"options":5'))
    with pytest.raises(LogError, match=r":1: "):
        list(read_log(log.path))


def test_what_is_wrong_with_a_long_line_is_told_in_a_short_one(log: DecisionLog) -> None:
    log.event(0.0, Arrived(request(1)))
    log.flush()
    now = b'"now":"%b",' % (b"x" * 200_000)
    log.path.write_bytes(log.path.read_bytes().replace(b'"now":0.0,', now))
    with pytest.raises(LogError, match=r":2: ") as raised:
        list(read_log(log.path))
    assert len(str(raised.value)) < 600 + len(str(log.path))


def test_a_log_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no decision log at"):
        list(read_log(tmp_path / "d"))


seconds = st.floats(0, 1e6)
numbers = st.integers(1, 1000)
estimates = st.builds(
    lambda p50, more: TokenEstimate(p50, p50 + more), st.floats(1, 1e4), st.floats(0, 1e4)
)
requests = st.builds(
    Request,
    numbers,
    st.text(max_size=5),
    seconds,
    estimates,
    deadline=seconds | st.just(float("inf")),
    expires_at=seconds | st.just(float("inf")),
    tenant=st.text(max_size=5),
    session=st.text(max_size=5),
)
events = (
    st.builds(Arrived, requests)
    | st.builds(FirstToken, numbers)
    | st.builds(
        Completed,
        numbers,
        st.none() | numbers,
        st.none() | numbers,
        st.booleans(),
        st.none() | numbers,
        st.none() | numbers,
    )
    | st.builds(
        Throttled, numbers, st.sampled_from(RefusalCause), st.none() | seconds, st.floats(0, 1)
    )
    | st.builds(Failed, numbers, st.booleans(), st.booleans(), st.floats(0, 1))
    | st.builds(Cancelled, numbers)
    | st.builds(Woke)
    | st.builds(DriverStalled, seconds)
    | st.builds(LimitsSeen, st.text(max_size=3), st.none() | seconds)
)


@given(seconds, events)
def test_every_event_comes_back_to_the_last_bit(now: float, event: Event) -> None:
    line = jsonio.loads(jsonio.dumps(line_of(now, event, None)))
    assert line.pop("now") == now
    assert line.pop("event")
    assert decode(type(event), line) == event


def test_settings_come_back() -> None:
    rich = replace(
        SETTINGS,
        upstreams=(
            UpstreamSettings("a", models=("x", "y"), limits=Limits(60, 1e5)),
            UpstreamSettings("b"),
        ),
    )
    assert decode(Settings, jsonio.loads(jsonio.dumps(rich))) == rich


@given(st.integers(0, 2**32))
def test_a_recorded_run_replays_to_the_same_decisions(seed: int) -> None:
    """A log of real decisions, read again, decides the same, to the last bit of every Why."""
    import tempfile

    chance = random.Random(seed)
    scheduler = build_scheduler(SETTINGS)
    with tempfile.TemporaryDirectory() as folder:
        log = DecisionLog(Path(folder) / "d", run="run", now=0.0, settings=SETTINGS)
        flying: list[int] = []
        now = 0.0

        def tell(event: Event) -> None:
            log.event(now, event)
            for action in scheduler.handle(event, now=now):
                log.action(now, action)
                if isinstance(action, Dispatch):
                    flying.append(action.request.id)

        for number in range(1, 40):
            now += chance.expovariate(4.0)
            tell(Arrived(request(number, now, session=chance.choice(["", "a"]))))
            if flying and chance.random() < 0.8:
                landed = flying.pop(chance.randrange(len(flying)))
                throttled = chance.random() < 0.5
                rate = Throttled(landed, RefusalCause.RATE, 0.5)
                tell(rate if throttled else Completed(landed, 40))
            due = scheduler.next_wakeup()
            if due is not None and chance.random() < 0.5:
                now = max(now, due)
                tell(Woke())
        log.close()

        steps = list(replayed(read_log(log.path)))
        assert sum(len(recorded) for _, recorded, _ in steps) > 10
        for _, recorded, decided in steps:
            assert decided == recorded


def test_a_line_that_cannot_be_written_is_lost_and_counted_and_the_others_are_written(
    log: DecisionLog, caplog: pytest.LogCaptureFixture
) -> None:
    for number in (1, 2):
        log.event(0.0, Arrived(request(number, tenant=object())))
    log.event(1.0, Arrived(request(3)))
    log.flush()
    log.event(2.0, FirstToken(3))
    log.flush()

    lines = [json.loads(line) for line in log.path.read_bytes().splitlines()]
    assert [line.get("lost", line.get("event")) for line in lines] == [
        None,
        "arrived",
        2,
        "first_token",
    ]
    assert caplog.text.count("a line of the decision log cannot be written") == 1
