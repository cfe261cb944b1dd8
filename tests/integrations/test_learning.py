"""In process as in the sidecar: every settled reply is a lesson, whoever said how long it'd be."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

import penstock
from penstock import Penstock, Usage
from penstock.core.events import Dispatch
from penstock.predict import GuardedPredictor, OnlinePredictor
from tests.integrations.http.rig import BODY, CHAT, REPLY, Tape, penstock_with, scripted_sync

PROMPT = "Name a colour of the rainbow."
LENGTH = 7
ROUNDS = 60
Call = Callable[[], object]


def gate_call(scheduled: Penstock, **words: Any) -> Call:
    def call() -> None:
        with scheduled.sync_gate("provider.example").admit(
            prompt=PROMPT, model="m", route="colours", **words
        ) as slot:
            slot.settle(Usage(LENGTH))

    return call


def decorated_call(scheduled: Penstock, **words: Any) -> Call:
    @penstock.scheduled(
        penstock=scheduled,
        upstream="provider.example",
        prompt=lambda prompt: prompt,
        model="m",
        route="colours",
        usage=lambda _reply: Usage(LENGTH),
        **words,
    )
    def call(prompt: str) -> str:
        return prompt

    return lambda: call(PROMPT)


def http_call(scheduled: Penstock, **words: Any) -> Call:
    client = scripted_sync(httpx2, scheduled, lambda _request: httpx2.Response(200, json=REPLY))
    messages = [{"role": "user", "content": PROMPT}]
    headers = {"x-penstock-route": "colours"}
    if words:
        headers["x-penstock-tokens"] = str(words["tokens"])
    body = {**BODY, "messages": messages, "max_tokens": None}
    return lambda: client.post(CHAT, json=body, headers=headers).raise_for_status()


WAYS = pytest.mark.parametrize("way", [gate_call, decorated_call, http_call])


@WAYS
def test_a_stated_length_is_used_and_its_reply_teaches_all_the_same(
    way: Callable[..., Call],
) -> None:
    tape = Tape()
    scheduled = penstock_with(tape=tape, predictor="learned")
    way(scheduled)()
    unlearned = tape.of(Dispatch)[-1].request.estimate
    stating = way(scheduled, tokens=200)
    for _ in range(ROUNDS):
        stating()
        assert tape.of(Dispatch)[-1].request.estimate == penstock.TokenEstimate(200, 200, "caller")

    way(scheduled)()

    learnt = tape.of(Dispatch)[-1].request.estimate
    assert learnt.source.startswith("predictor")
    assert learnt.p50_tokens < min(unlearned.p50_tokens, 4 * LENGTH)


@WAYS
def test_what_is_stated_is_no_merit_of_the_predictors(way: Callable[..., Call]) -> None:
    guard = GuardedPredictor(OnlinePredictor.shipped())
    scheduled = penstock_with(predictor=guard)
    stating = way(scheduled, tokens=200)
    for _ in range(3):
        stating()

    assert (guard.counts.learned, guard.counts.predicted) == (3, 0)


def test_a_predictor_of_ones_own_is_told_of_stated_calls_too() -> None:
    heard: list[int] = []

    class Listening:
        def predict(self, spec: Any, traffic_class: Any) -> Any:
            from penstock.calls.spec import Prediction

            return Prediction(traffic_class.estimate, heard.append)

    gate_call(penstock_with(predictor=Listening()), tokens=9)()
    assert heard == [LENGTH]


def test_embeddings_are_no_lesson() -> None:
    guard = GuardedPredictor(OnlinePredictor.shipped())
    scheduled = penstock_with(predictor=guard)
    reply = {"data": [{"embedding": [0.5]}], "usage": {"prompt_tokens": 3}}
    client = scripted_sync(httpx2, scheduled, lambda _request: httpx2.Response(200, json=reply))
    url = "https://provider.example/v1/embeddings"
    client.post(url, json={"model": "m", "input": "hello"}).raise_for_status()

    assert (guard.counts.learned, guard.counts.predicted) == (0, 0)


def test_the_decorators_functions_see_each_calls_arguments() -> None:
    tape = Tape()

    @penstock.scheduled(
        penstock=penstock_with(tape=tape),
        tokens=lambda text, times=1: len(text) * times,
        class_=lambda text, times=1: "batch" if times > 1 else "interactive",
    )
    def call(text: str, times: int = 1) -> str:
        return text * times

    assert [call("weir"), call("weir", times=3)] == ["weir", "weir" * 3]
    requests = [each.request for each in tape.of(Dispatch)]
    assert [each.estimate.p50_tokens for each in requests] == [4, 12]
    assert [each.traffic_class for each in requests] == ["interactive", "batch"]
