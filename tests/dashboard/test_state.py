"""The page's data: who waits and for what, the same from a running scheduler and from its log."""

import json
from pathlib import Path
from typing import Any

import pytest

from penstock.core.events import (
    Action,
    Cancelled,
    Completed,
    Event,
    Failed,
    FirstToken,
    RefusalCause,
    Throttled,
    Woke,
)
from penstock.core.settings import Settings
from penstock.dashboard.from_log import LogSource
from penstock.dashboard.one_request import request_view
from penstock.dashboard.spans import SLOWEST_KEPT, Ended, Spans
from penstock.dashboard.state import SPANS, DashboardState
from penstock.dashboard.views import VIEWS, view
from penstock.log.format import ACTIONS
from penstock.log.reader import LogError, read_log, replayed
from penstock.log.writer import DecisionLog
from penstock.policies.registry import build_scheduler
from penstock.sim.scenario import read_scenario, settings_of
from penstock.sim.simulate import run_one
from penstock.wire import jsonio
from tests.dashboard.scenes import Scene, scene, settings

FULL = {
    "seeds": [1],
    "provider": {"model": "slots", "slots": 4},
    "workload": {"requests": 300, "rate_per_s": 6.0},
    "policies": {"it": {}},
}


def _simulated(path: Path) -> tuple[DashboardState, Settings]:
    """Write the log of a run with more asked for than is served; return what was seen live."""
    scenario = read_scenario(FULL)
    workload = scenario.workload.build(1, scenario.classes)
    settings = settings_of(scenario.policies["it"], workload.classes, scenario.upstreams)
    log = DecisionLog(path, run="r", now=0.0, settings=settings, wall=lambda: 0.0)
    state: list[DashboardState] = []

    def note(now: float, event: Event, actions: list[Action]) -> None:
        if not state:
            state.append(DashboardState("r", now=now, wall=now, whole=True))
        for observer in (log, state[0]):
            observer.event(now, event)
            for action in actions:
                observer.action(now, action)

    run_one(scenario, "it", 1, watch=note)
    log.close()
    return state[0], settings


def test_an_upstream_that_takes_calls_is_not_paused_for_the_time_between_two_clocks() -> None:
    """The page reads the clock a moment before the scheduler does."""
    here = scene()
    snapshot = here.snapshot()
    assert snapshot is not None
    here.clock = snapshot.now - 0.001
    (upstream,) = view(here, "now")["upstreams"]
    assert upstream["paused_s"] == 0.0


class _As(LogSource):
    """What was seen live, shown as a log's source shows it."""

    def __init__(self, state: DashboardState, at: float, path: Path) -> None:
        self.state, self._now, self._path = state, at, path


@pytest.mark.parametrize("name", VIEWS)
def test_a_log_shows_what_its_run_showed(name: str, tmp_path: Path) -> None:
    live, _ = _simulated(tmp_path / "log.jsonl")
    from_log = LogSource(tmp_path / "log.jsonl")
    as_live = _As(live, from_log.now(), tmp_path)

    assert jsonio.dumps(view(from_log, name)) == jsonio.dumps(view(as_live, name))


def test_every_second_waited_is_counted_once_under_its_cause(tmp_path: Path) -> None:
    state, _ = _simulated(tmp_path / "log.jsonl")
    shown = view(LogSource(tmp_path / "log.jsonl"), "why")

    by_cause = {cause: sum(values) for cause, values in shown["waits"].items()}
    by_class: dict[str, float] = {}
    for row in shown["by_class"].values():
        for cause, seconds in row.items():
            by_class[cause] = by_class.get(cause, 0.0) + seconds
    queued = sum(
        line["outcome"]["queued_s"]
        for line in map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
        if line.get("outcome")
    )
    assert sum(by_cause.values()) == pytest.approx(queued)
    assert by_cause == pytest.approx(by_class)
    assert not state.in_hand


def test_a_waiting_request_says_its_cause_its_place_and_when_its_turn_may_come() -> None:
    source = scene()
    shown = request_view(source, "run-5")
    assert shown is not None

    assert shown["summary"] == [
        (
            "It waits: 9.5 s so far (9.5 s because there was no room upstream). Meanwhile 2 of its "
            "class went."
        ),
        "Now it waits because there was no room upstream.",
        (
            "It is number 3 of its class; 0.25 of its class were sent a second in the last minute, "
            "so its turn may come in about 12.0 s."
        ),
        (
            "What helps: less of the same class, a shorter deadline if it is urgent, or another "
            "upstream: penstock sends as much at once as the provider serves without queueing "
            "inside (see Window)."
        ),
    ]
    assert shown["ended"] is False
    assert shown["phases"] == {"window": 9.5}


def test_the_place_is_the_ordering_policys_own() -> None:
    source = Scene(settings(window=1.0))
    for number in range(9):
        source.arrive(number, deadline_s=60.0 - 7.0 * (number % 4))
    told = {n: place.position for n in range(9) if (place := source.place(n)) is not None}
    sent = []
    while flying := [n for n, each in source.state.in_hand.items() if each.upstream]:
        sent += source.tell(Completed(flying[0], 40))

    assert sent == sorted(told, key=lambda n: told[n] or 0) == [3, 7, 2, 6, 1, 5, 4, 8]


def test_what_waits_is_told_by_class_tenant_and_cause() -> None:
    source = scene()
    now = view(source, "now")
    (row,) = now["classes"]

    assert (row["waiting"], row["in_flight"], row["oldest_s"]) == (6, 1, 10.5)
    assert row["causes"] == {"window": 6}
    assert row["slack_s"] is not None
    assert [each["id"] for each in now["longest_waiting"]] == [f"run-{n}" for n in range(3, 9)]
    assert now["upstreams"][0]["in_flight"] == 1
    assert [each["id"] for each in now["slowest"]] == ["run-1", "run-0"]


def test_a_request_that_ended_says_where_its_time_went() -> None:
    source = scene()
    shown = request_view(source, "run-1")
    assert shown is not None

    assert shown["summary"] == [
        (
            "It took 9.5 s: 4.5 s waiting here (4.5 s because there was no room upstream), "
            "5.0 s at the provider."
        ),
        (
            "Completed, in time: 40 output tokens (reported by the provider), "
            "1.00 times the predicted."
        ),
    ]
    assert shown["ended"] is True
    assert sum(shown["phases"].values()) == pytest.approx(shown["steps"][-1]["after_s"])
    assert request_view(source, "run-99") is None
    assert request_view(source, "nobody") is None


def test_the_chart_ends_with_the_last_span_that_is_over() -> None:
    """One that has just begun has few waits so far: the line would fall to 0 at its end."""
    source = Scene(settings(window=1.0))
    for number in range(3):
        source.arrive(number)
    for number, ended_at in ((0, 4.0), (1, 6.0)):
        source.clock = ended_at
        source.tell(Completed(number, 40))
    shown = view(source, "why")

    assert shown["span_s"] == 5.0
    assert shown["waits"] == {"window": [4.0]}
    assert [at - source.state.wall_offset_s for at in shown["times"]] == [2.5]
    source.live = False
    assert view(source, "why")["waits"] == {"window": [4.0, 6.0]}


def test_a_first_token_is_spoken_of_only_where_one_was_seen() -> None:
    source = Scene(settings(window=2.0))
    assert source.arrive(0) + source.arrive(1) == [0, 1]
    source.clock = 1.0
    source.tell(FirstToken(1))
    source.clock = 3.0
    source.tell(Completed(0, 40))
    source.tell(Completed(1, 40))
    whole, stream = request_view(source, "run-0"), request_view(source, "run-1")
    assert whole is not None
    assert stream is not None

    assert (whole["phases"], whole["words"]["provider"]) == ({"provider": 3.0}, "at the provider")
    assert stream["phases"] == {"provider": 1.0, "tokens": 2.0}
    assert stream["words"]["provider"] == "at the provider, before the first token"


def test_a_caller_that_left_before_its_turn_is_not_said_not_to_have_waited() -> None:
    source = Scene(settings(window=1.0))
    assert source.arrive(0) == [0]
    assert source.arrive(1) == []
    source.clock = 7.0
    source.tell(Cancelled(1))
    now = view(source, "now")

    (row,) = now["slowest"]
    assert (row["queued_s"], row["cause"]) == (7.0, "window")
    assert row["mostly"] == "there was no room upstream"


def test_a_call_is_said_never_to_have_been_sent_only_if_it_was_not() -> None:
    source = Scene(settings(window=1.0))
    assert source.arrive(0) == [0]
    source.clock = 3.0
    source.tell(Throttled(0, RefusalCause.QUOTA, 600.0))
    source.arrive(1)
    mostly = {row["id"]: row["mostly"] for row in view(source, "now")["slowest"]}

    assert mostly == {"run-0": "the provider took so long", "run-1": "it was never sent"}


def test_an_attempt_that_broke_is_not_taken_for_waiting() -> None:
    source = Scene(settings(window=1.0))
    assert source.arrive(0) == [0]
    source.clock = 4.0
    source.tell(Failed(0, retryable=True, jitter=0.5))
    source.clock = 4.25
    assert source.tell(Woke()) == [0]
    source.clock = 6.25
    source.tell(Completed(0, 40))
    shown = request_view(source, "run-0")
    assert shown is not None

    assert shown["summary"][0] == (
        "It took 6.2 s: 0.2 s waiting here (0.2 s because it paused before the next attempt), "
        "4.0 s in earlier attempts, 2.0 s at the provider."
    )
    assert shown["phases"] == {"backoff": 0.25, "provider": 2.0, "earlier": 4.0}


def test_ten_thousand_waiting_are_counted_not_listed() -> None:
    source = Scene(settings(window=1.0))
    for number in range(10_000):
        source.arrive(number, tenant=f"t{number % 500}")
    now = view(source, "now")
    (row,) = now["classes"]

    assert row["waiting"] == 9_999
    assert len(row["tenants"]) == 20
    assert len(now["longest_waiting"]) == 10
    assert len(jsonio.dumps(now)) < 20_000


def test_an_hour_is_kept_live_and_everything_of_a_log_in_wider_spans() -> None:
    live = Spans(0.0, width_s=5.0, kept=SPANS, whole=False)
    whole = Spans(0.0, width_s=1.0, kept=SPANS, whole=True)
    for second in range(10_000):
        for spans in (live, whole):
            spans.at(float(second)).arrived["a"] += 1
            spans.at(float(second)).end(
                Ended(float(second), 0.0, float(second), f"r-{second}", "a", "", "", "", "late", 1)
            )

    assert live.since(-1.0).arrived["a"] == SPANS * 5
    assert whole.since(-1.0).arrived["a"] == 10_000
    assert whole.width_s == 16.0
    times, rows = whole.series(9_999.0, lambda span: {"a": float(span.arrived["a"])})
    assert len(times) == 625 == len(rows["a"])
    assert {*rows["a"]} == {16.0}
    assert max(whole.slowest_since(-1.0)).id == "r-9999"
    assert sum(1 for _ in whole.slowest_since(-1.0)) == 625 * SLOWEST_KEPT


def test_a_log_without_a_request_is_refused_in_words(tmp_path: Path) -> None:
    DecisionLog(tmp_path / "log.jsonl", run="r", now=0.0).close()

    with pytest.raises(LogError, match="nothing else: has no request come yet"):
        LogSource(tmp_path / "log.jsonl")


def test_asking_changes_no_decision(tmp_path: Path) -> None:
    """The same run, looked at after each event, decides the same."""
    path = tmp_path / "log.jsonl"
    _, settings = _simulated(path)
    plain = [each for _, _, each in replayed(read_log(path))]
    looked: list[Any] = []
    scheduler = build_scheduler(settings)
    kinds = tuple(ACTIONS.values())
    for record in read_log(path):
        if isinstance(record.what, kinds):
            continue
        actions = scheduler.handle(record.what, now=record.now)  # type: ignore[arg-type]
        scheduler.waiting.held()
        for id_ in range(0, 300, 29):
            scheduler.waiting.place(id_, now=record.now)
        if actions:
            looked.append(actions)
    assert looked == [each for each in plain if each]
