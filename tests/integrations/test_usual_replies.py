"""Calls whose length decides nothing get what their kind usually has; the rest are read."""

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from penstock import Penstock, TrafficClass, Usage
from penstock.calls.spec import RequestSpec
from penstock.core.events import Dispatch
from penstock.predict import CallFeatures, GuardedPredictor, OnlinePredictor
from penstock.predict.online.guard import READ_PER_S
from tests.integrations.http.rig import BODY, CHAT, Tape, penstock_with, scripted_sync

PROMPT = "Name a colour of the rainbow."
FIRST = 50
"""Replies after which a kind is known."""
IN_A_SECOND = int(READ_PER_S)


class Calls:
    """Calls of one kind, by a clock that stands until it is moved."""

    def __init__(self, **options: Any) -> None:
        self.now = 0.0
        self.tape = Tape()
        self.guard = GuardedPredictor(OnlinePredictor.cold(), clock=lambda: self.now)
        self.scheduled: Penstock = penstock_with(
            window=1, tape=self.tape, predictor=self.guard, **options
        )

    def spec(self, **words: Any) -> RequestSpec:
        return RequestSpec(prompt=PROMPT, model="m", route="colours", **words)

    def __call__(self, tokens: int, **words: Any) -> Any:
        """Make a call whose reply has so many tokens; return its request."""
        with self.scheduled.sync_gate("p").admit(self.spec(**words)) as slot:
            slot.settle(Usage(tokens))
        return self.last()

    def last(self) -> Any:
        return self.tape.of(Dispatch)[-1].request

    def known(self) -> "Calls":
        """Make so many calls that the next ones need not be read."""
        for number in range(FIRST + IN_A_SECOND):
            assert self(10 + number % 10).estimate.source == "predictor:online"
        return self


def test_a_known_kind_is_read_so_often_a_second_and_else_has_what_it_usually_has() -> None:
    calls = Calls().known()

    request = calls(15)

    estimate = request.estimate
    assert estimate.source == "predictor:usual"
    assert (round(estimate.p50_tokens), round(estimate.p90_tokens)) in ((14, 18), (15, 18))
    assert request.prompt_tokens == CallFeatures.from_prompt(PROMPT).prompt_tokens
    assert request.route == "colours"

    calls.now += 1.0
    sources = [calls(15).estimate.source for _ in range(IN_A_SECOND + 1)]
    assert sources == ["predictor:online"] * IN_A_SECOND + ["predictor:usual"]
    counts = calls.guard.counts
    read = FIRST + 2 * IN_A_SECOND
    assert (counts.predicted, counts.learned, counts.usual) == (read, read, 2)


@pytest.mark.parametrize(
    "words", [{"deadline_s": 60.0}, {"route": "shapes"}, {"model": "other"}, {"tokens": 9}]
)
def test_a_call_with_a_deadline_or_of_another_kind_is_read(words: dict[str, Any]) -> None:
    calls = Calls().known()
    spec = calls.spec()
    for name, value in words.items():
        setattr(spec, name, value)
    with calls.scheduled.sync_gate("p").admit(spec) as slot:
        slot.settle(Usage(15))

    assert calls.guard.counts.usual == 0
    assert calls.guard.counts.learned == FIRST + IN_A_SECOND + 1


@pytest.mark.parametrize(("most", "some"), [(10, 100), (100, 10)])
def test_so_is_every_call_of_a_kind_whose_replies_differ_much(most: int, some: int) -> None:
    calls = Calls()
    for number in range(2 * (FIRST + IN_A_SECOND)):
        assert calls(most if number % 3 else some).estimate.source == "predictor:online"


def test_so_is_every_call_of_a_class_with_a_deadline() -> None:
    calls = Calls(classes=(TrafficClass("timed", deadline_s=60.0),)).known()
    calls(15)
    assert calls.guard.counts.usual == 0


async def test_so_is_a_call_while_another_waits() -> None:
    """Which goes first is decided by their lengths."""
    calls = Calls().known()
    gate = calls.scheduled.gate("p")
    done = asyncio.Event()

    async def one() -> None:
        async with gate.admit(calls.spec()) as slot:
            await done.wait()
            slot.settle(Usage(15))

    tasks = [asyncio.create_task(one()) for _ in range(4)]
    while gate.driver.in_hand < len(tasks):
        await asyncio.sleep(0)
    done.set()
    await asyncio.gather(*tasks)

    sources = [each.request.estimate.source for each in calls.tape.of(Dispatch)[-4:]]
    assert sorted(sources) == ["predictor:online"] * 2 + ["predictor:usual"] * 2


def test_caps_and_choices_of_a_call_bound_what_is_usual() -> None:
    calls = Calls()

    def reply(request: httpx2.Request) -> httpx2.Response:
        usage = {"prompt_tokens": 9, "completion_tokens": 100}
        choices = [{"index": 0, "message": {"role": "assistant", "content": "ho"}}]
        return httpx2.Response(200, json={"choices": choices, "usage": usage})

    client = scripted_sync(httpx2, calls.scheduled, reply)
    plain = {**BODY, "max_tokens": None}

    def post(**more: Any) -> Any:
        client.post(CHAT, json={**plain, **more}).raise_for_status()
        return calls.last().estimate

    for _ in range(FIRST + IN_A_SECOND):
        post()
    for more, p90 in (({}, 100), ({"n": 3}, 300), ({"n": 3, "max_tokens": 20}, 60)):
        estimate = post(**more)
        assert (estimate.source, round(estimate.p90_tokens)) == ("predictor:usual", p90)


def test_a_predictor_that_fails_is_not_relied_on_for_what_is_usual() -> None:
    calls = Calls().known()
    predictor = calls.guard._predictor
    assert isinstance(predictor, OnlinePredictor)

    def broken(*_: Any) -> Any:
        raise RuntimeError("broken")

    make: Callable[..., Any] = broken
    predictor.learn = make  # type: ignore[method-assign]
    calls.now += 1.0
    for _ in range(IN_A_SECOND):
        calls(15)
    calls.now += 4000.0
    assert calls(15).estimate.source == "table"
