"""Whatever the program hands in, a reply that was paid for reaches its caller."""

import asyncio
import contextvars
import json
import logging
import math
import runpy
import threading
from collections.abc import Callable, Iterator
from dataclasses import asdict
from decimal import Decimal
from itertools import takewhile
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import penstock
from penstock import Penstock, TokenEstimate, TrafficClass, Usage
from penstock.calls.spec import Prediction, RequestSpec
from penstock.core.events import Action, Arrived, Completed, Event
from penstock.errors import Refused
from penstock.runtime import clock as clock_module
from penstock.runtime.clock import ThreadClock
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    USAGE,
    Tape,
    assert_idle,
    penstock_with,
    scripted_sync,
    sse,
    token,
)
from tests.interrupts import interrupted


@pytest.mark.parametrize(
    ("said", "counted"),
    [
        (12.0, 12),
        (np.int64(12), 12),
        (np.float64(12.0), 12),
        (12.5, None),
        (-1, None),
        (math.nan, None),
        (math.inf, None),
        ("12", None),
        (10**40, None),
    ],
)
def test_a_count_of_any_type_settles_the_slot(said: Any, counted: int | None) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape)
    with scheduled.sync_gate().admit() as slot:
        slot.settle(Usage(said, prompt_tokens=said))
    (end,) = tape.of(Completed)
    assert (end.output_tokens, end.prompt_tokens) == (counted, counted)
    assert counted is None or type(end.output_tokens) is int
    assert_idle(scheduled)


def test_what_is_no_usage_at_all_is_unknown_and_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scheduled = penstock_with()
    for _ in range(2):
        with scheduled.sync_gate().admit() as slot:
            slot.settle({"output_tokens": 5})  # type: ignore[arg-type]
    assert caplog.text.count("no penstock.Usage") == 1
    assert_idle(scheduled)


def test_a_usage_hook_that_raises_does_not_lose_the_reply(caplog: pytest.LogCaptureFixture) -> None:
    scheduled = penstock_with()

    def broken(_reply: str) -> Usage:
        raise KeyError("usage")

    @penstock.scheduled(penstock=scheduled, usage=broken)
    def ask() -> str:
        return "paid for"

    @penstock.scheduled(penstock=scheduled, usage=lambda _reply: 7)  # type: ignore[arg-type, return-value]
    def ask_again() -> str:
        return "paid for"

    assert [ask(), ask(), ask_again()] == ["paid for"] * 3
    assert caplog.text.count("usage= failed") == 1
    assert_idle(scheduled)


@pytest.mark.parametrize("fails_at", ["begin", "headers", "event", "action"])
def test_a_tracer_that_raises_does_not_lose_the_reply(
    fails_at: str, caplog: pytest.LogCaptureFixture
) -> None:
    class Tracer:
        def _note(self, what: str) -> dict[str, str]:
            if what == fails_at:
                raise OSError("the exporter is down")
            return {}

        def begin(self, *_facts: object) -> None:
            self._note("begin")

        def headers(self, *_facts: object) -> dict[str, str]:
            return self._note("headers")

        def event(self, *_facts: object) -> None:
            self._note("event")

        def action(self, *_facts: object) -> None:
            self._note("action")

    scheduled = Penstock(tracer=Tracer())
    client = scripted_sync(httpx2, scheduled, lambda _request: httpx2.Response(200, json=REPLY))
    assert client.post(CHAT, json=BODY).json() == REPLY
    with scheduled.sync_gate().admit() as slot:
        slot.first_token()
    assert "the exporter is down" in caplog.text
    if fails_at in ("begin", "headers"):  # what an observer raises is logged each time
        assert caplog.text.count("the exporter is down") == 1
    assert_idle(scheduled)


@pytest.mark.parametrize("weight", [-1, 0, math.inf, math.nan, 1e-12, "4"])
def test_a_weight_that_cannot_be_is_refused_where_it_is_stated(weight: Any) -> None:
    with pytest.raises(ValueError, match=r"class 'batch': weight=.* must be a finite number >= "):
        TrafficClass("batch", weight=weight)


@pytest.mark.parametrize(
    "wrong",
    [
        {"deadline_s": 0},
        {"deadline_s": math.nan},
        {"queue_limit": 0},
        {"queue_limit": 1.5},
        {"queue_limit_tokens": -1},
        {"hopeless": "drop"},
    ],
)
def test_a_class_that_cannot_work_is_refused_where_it_is_stated(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=f"class 'batch': {next(iter(wrong))}="):
        TrafficClass("batch", **wrong)


def test_a_core_that_raises_on_a_timer_does_not_kill_the_clock(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    scheduled = penstock_with(window=1)
    driver = scheduled.outlet().driver
    ask, failures = driver._core.next_wakeup, iter([RuntimeError("a defect")])

    def next_wakeup() -> float | None:
        for failure in failures:
            raise failure
        return ask()

    with scheduled.sync_gate().admit():
        monkeypatch.setattr(driver._core, "next_wakeup", next_wakeup)
        monkeypatch.setattr("penstock.runtime.driver.FAULT_RETRY_S", 0.01)
        with pytest.raises(penstock.Refused) as refused:  # its timer fires all the same
            contextvars.Context().run(  # no nested call, which would pass
                scheduled.sync_gate().enter, penstock.RequestSpec(expires_in_s=0.05)
            )
    assert refused.value.reason == "expired"
    assert driver.faults == 1
    assert caplog.text.count("a defect") == 1
    assert_idle(scheduled)


def test_a_timers_callback_that_raises_leaves_the_clocks_thread_alive(
    caplog: pytest.LogCaptureFixture,
) -> None:
    from penstock.runtime.clock import ThreadClock

    clock, rang = ThreadClock(), threading.Event()

    def broken() -> None:
        raise ZeroDivisionError

    clock.call_at(clock.time(), broken)
    clock.call_at(clock.time(), rang.set)
    assert rang.wait(60)
    assert caplog.text.count("a timer's callback failed") == 1
    assert logging.getLogger("penstock.runtime").level == logging.NOTSET


def test_a_call_that_an_observer_makes_in_the_middle_of_a_decision_is_refused_in_words() -> None:
    """The decision goes on only after the observer, and the call would wait for the decision."""
    told: list[str] = []

    class Asker:
        def event(self, now: float, event: Event) -> None:
            if told:
                return
            told.append("")
            with pytest.raises(Refused) as refused, scheduled.sync_gate().admit():
                pass
            told.append(str(refused.value))

        def action(self, now: float, action: Action) -> None:
            pass

    def call() -> None:
        with scheduled.sync_gate().admit() as slot:
            slot.settle()
        told.append("answered")

    with Penstock(tracer=None, observers=[Asker()]) as scheduled:
        caller = threading.Thread(target=call, daemon=True)
        caller.start()
        caller.join(60)
        (state,) = scheduled.snapshot().values()

    assert told[2:] == ["answered"]
    assert "in an observer" in told[1]
    assert state.waiting == state.in_flight == 0


@pytest.mark.parametrize("meanwhile", ["called", "imported"])
def test_waits_end_though_a_test_of_the_programs_has_stopped_the_time(
    monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    def call() -> None:
        with scheduled.sync_gate().admit() as slot:
            slot.throttled("rate", 0.01)

    clock = ThreadClock()
    monkeypatch.setattr("time.monotonic", lambda: 5.0)
    if meanwhile == "imported":
        clock = runpy.run_path(clock_module.__file__)["ThreadClock"]()
    with Penstock(tracer=None, clock=clock) as scheduled:
        caller = threading.Thread(target=call, daemon=True)
        caller.start()
        caller.join(60)
        assert not caller.is_alive()


def test_a_system_without_a_thread_to_give_holds_up_calls_until_it_has_one(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    start, refused = threading.Thread.start, [None] * 2

    def scarce(thread: threading.Thread) -> None:
        if refused and thread.name == "penstock-clock":
            refused.pop()
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", scarce)
    with Penstock(tracer=None) as scheduled:
        for _ in range(3):
            with scheduled.sync_gate().admit() as slot:
                slot.settle()
        with scheduled.sync_gate().admit() as slot:
            slot.throttled("rate", 0.01)

    assert caplog.text.count("no thread can be started") == 2


def test_a_program_that_is_closed_leaves_no_thread() -> None:
    def clocks() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "penstock-clock"]

    before = clocks()
    for _ in range(20):
        with Penstock(tracer=None) as scheduled:
            late = scheduled.sync_gate().admit(deadline_s=3_000.0)
            with scheduled.sync_gate().admit(deadline_s=2_000.0) as slot:
                slot.settle()
        with pytest.raises(Refused), late:  # a call after the end starts none that stays
            pass
    for each in clocks():
        if each not in before:
            each.join(60)
            assert not each.is_alive()


class _Tenant(str):
    """Compares in a way of its own, and not at all."""

    __slots__ = ()
    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "words",
    [
        {"tokens": np.int64(7)},
        {"tokens": (np.float32(7), np.int32(9))},
        {"deadline_s": np.float32(300)},
        {"expires_in_s": Decimal(300)},
        {"max_tokens": np.int64(30), "prompt_tokens": np.int64(5)},
        {"tenant": _Tenant("a"), "model": _Tenant("m"), "class_": _Tenant("batch")},
        {"tenant": None, "session": None},
        {"penstock_block": {"tenant": _Tenant("a"), "deadline_s": np.int64(300)}},
    ],
)
def test_numbers_and_strings_of_other_libraries_are_taken_as_pythons_own(
    words: dict[str, Any], tmp_path: Path
) -> None:
    log = tmp_path / "decisions.jsonl"
    scheduled = penstock_with(decision_log=log)
    with penstock.request(**words.pop("penstock_block", {})):
        for _ in range(2):
            with scheduled.sync_gate().admit(**words) as slot:
                slot.settle(Usage(7))
    json.dumps([asdict(each) for each in scheduled.snapshot().values()])
    scheduled.close()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line.get("event") for line in lines].count("completed") == 2


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"tenant": 5}, "tenant must be a string, not of type int"),
        ({"model": object()}, "model must be a string, not of type object"),
        ({"class_": []}, "traffic_class must be a string, not of type list"),
        ({"session": "s" * 257}, "session must not be longer than 256 characters"),
        ({"route": "\ud83d"}, "half a character"),
        ({"tokens": "7"}, "is no length of a reply"),
        ({"tokens": Decimal("nan")}, "is no length of a reply"),
        ({"deadline_s": "7"}, "deadline_s is no number"),
        ({"deadline_s": 10**400}, "deadline_s is no number"),
        ({"max_tokens": Decimal("sNaN")}, "max_tokens is no number"),
        ({"max_tokens": 10**400}, "max_tokens is no number"),
        ({"prompt": True}, "prompt must be a text"),
        ({"body": ["hi"]}, "body must be a parsed JSON object"),
    ],
)
def test_what_is_no_name_and_no_number_is_refused_in_words(
    words: dict[str, Any], said: str
) -> None:
    scheduled = penstock_with(predictor="max_tokens")
    with pytest.raises((TypeError, ValueError), match=said):
        scheduled.sync_gate().admit(**words)
    with scheduled.sync_gate().admit() as slot:
        slot.settle(Usage(7))
    assert_idle(scheduled)


def test_a_body_that_contains_itself_is_weighed_in_bounded_time() -> None:
    turn: dict[str, Any] = {"role": "user"}
    turn["content"] = [turn]
    scheduled = penstock_with()
    with scheduled.sync_gate().admit(body={"model": "m", "messages": [turn]}) as slot:
        slot.settle(Usage(7))
    assert_idle(scheduled)


@pytest.mark.parametrize("error", [asyncio.CancelledError, KeyboardInterrupt, SystemExit])
def test_an_observer_that_wants_to_end_it_all_ends_no_call(
    error: type[BaseException], caplog: pytest.LogCaptureFixture
) -> None:
    class Observer(Tape):
        def action(self, now: float, action: Action) -> None:
            raise error

    scheduled = penstock_with(window=1, tape=Observer())
    for _ in range(3):
        with scheduled.sync_gate().admit() as slot:
            slot.settle(Usage(7))
    assert "an observer failed on Dispatch" in caplog.text
    assert_idle(scheduled)


def _doors(scheduled: Penstock) -> dict[str, Callable[[], object]]:
    """Return a synchronous call through each door."""
    gate = scheduled.sync_gate()
    client = scripted_sync(httpx2, scheduled, lambda _: httpx2.Response(200, json=REPLY))
    told: Any = {
        "content": sse(token("a"), USAGE, "[DONE]"),
        "headers": {"content-type": "text/event-stream"},
    }
    live = scripted_sync(httpx2, scheduled, lambda _: httpx2.Response(200, **told))

    def gated() -> None:
        with gate.admit(max_tokens=5) as slot:
            slot.settle(Usage(3))

    def bare() -> None:
        gate.enter(RequestSpec(max_tokens=5)).settle(Usage(3))

    @penstock.scheduled(penstock=scheduled)
    def decorated() -> None:
        pass

    @penstock.scheduled(penstock=scheduled)
    def generated() -> Iterator[int]:
        yield 1
        yield 2

    def streamed() -> None:
        with live.stream("POST", CHAT, json=BODY) as response:
            response.read()

    return {
        "gate": gated,
        "enter": bare,
        "decorator": decorated,
        "generator": lambda: list(generated()),
        "client": lambda: client.post(CHAT, json=BODY),
        "stream": streamed,
    }


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited:RuntimeWarning")
@pytest.mark.parametrize("door", ["gate", "enter", "decorator", "generator", "client", "stream"])
def test_ctrl_c_at_any_place_of_a_call_leaves_nothing_behind(door: str) -> None:
    scheduled = penstock_with(window=1)
    call = _doors(scheduled)[door]
    call()
    places = range(1, 10_000, 7)  # all of them: 20 s
    tried = sum(1 for _ in takewhile(lambda place: interrupted(call, place), places))
    call()  # would wait for ever
    assert tried > 20
    assert_idle(scheduled)


class _Odd:
    """Predicts what is nothing of Python's own."""

    def __init__(self, prediction: Any) -> None:
        self.prediction = prediction

    def predict(self, _spec: object, _traffic_class: object) -> Any:
        return self.prediction


@pytest.mark.parametrize(
    ("prediction", "stands_in"),
    [
        (Prediction(TokenEstimate(5, 9), prompt_tokens=np.int64(3)), False),  # type: ignore[arg-type]
        (Prediction((5, 9)), True),  # type: ignore[arg-type]
        (Prediction(TokenEstimate(5, 9), prompt_tokens="3"), True),  # type: ignore[arg-type]
        (Prediction(TokenEstimate(5, 9), route="r" * 1000), True),
    ],
)
def test_a_call_goes_out_whatever_its_predictor_says(prediction: Any, stands_in: bool) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape, predictor=_Odd(prediction))
    with scheduled.sync_gate().admit() as slot:
        slot.settle(Usage(7))
    (arrived,) = tape.of(Arrived)
    assert arrived.request.estimate == (
        TokenEstimate(256, 1024) if stands_in else TokenEstimate(5, 9)
    )
    assert type(arrived.request.prompt_tokens) is int
