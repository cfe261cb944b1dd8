"""Whatever the program hands in, a reply that was paid for reaches its caller."""

import contextvars
import logging
import math
import threading
from typing import Any

import httpx2
import numpy as np
import pytest

import penstock
from penstock import Penstock, TrafficClass, Usage
from penstock.core.events import Completed
from penstock.errors import Refused
from tests.integrations.http.rig import (
    BODY,
    CHAT,
    REPLY,
    Tape,
    assert_idle,
    penstock_with,
    scripted_sync,
)


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
