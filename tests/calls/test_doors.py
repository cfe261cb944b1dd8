"""Bodies x doors: whichever way a call goes out, the scheduler is told the same of it."""

import gzip
import json
import math
from typing import Any

import pytest

from penstock.calls.endpoint import (
    CHAT,
    COMPLETIONS,
    EMBEDDINGS,
    IMAGES,
    MESSAGES,
    MODERATIONS,
    RERANK,
    RESPONSES,
    Endpoint,
)
from penstock.core.model import LARGEST_ESTIMATE_TOKENS, Request, TokenEstimate, TrafficClass
from tests.calls.doors import DOORS, TOML

WORDS = "water " * 1000
CLASS = TokenEstimate(256, 1024, "class")


def chat(content: Any, **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}], **more}


def deep(levels: int) -> Any:
    inner: Any = "x"
    for _ in range(levels):
        inner = [inner]
    return inner


IMAGE = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 40_000}}
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
BODIES: dict[str, tuple[Endpoint, dict[str, Any], TokenEstimate, int]] = {
    "plain": (CHAT, chat("hi"), CLASS, 6),
    "capped": (CHAT, chat("hi", max_tokens=100), TokenEstimate(100, 100, "max_tokens"), 6),
    "long": (CHAT, chat(WORDS), CLASS, 1506),
    "Chinese": (CHAT, chat("你好" * 500), CLASS, 756),
    "half an emoji": (CHAT, chat("ha \ud83d" * 100), CLASS, 105),
    "two choices": (CHAT, chat("hi", n=2), TokenEstimate(512, 2048, "class"), 6),
    "n = 10^160": (CHAT, chat("hi", n=10**160), TokenEstimate(256 * 128, 1024 * 128, "class"), 6),
    "n of a string": (CHAT, chat("hi", n="2"), CLASS, 7),
    "a cap of 0": (MESSAGES, chat("hi", max_tokens=0), TokenEstimate(1, 1, "max_tokens"), 6),
    "a cap of 10^160": (CHAT, chat("hi", max_tokens=10**160), CLASS, 6),
    "a cap below 0": (CHAT, chat("hi", max_tokens=-1), CLASS, 6),
    "a cap of a string": (CHAT, chat("hi", max_tokens="100"), CLASS, 7),
    "a cap of 99.0": (CHAT, chat("hi", max_tokens=99.0), TokenEstimate(99, 99, "max_tokens"), 6),
    "no messages": (CHAT, {"model": "m"}, CLASS, 1),
    "messages of a wrong type": (CHAT, {"model": "m", "messages": {"role": 7}}, CLASS, 2),
    "image": (CHAT, chat([IMAGE, {"type": "text", "text": WORDS}]), CLASS, 2508),
    "tools": (CHAT, chat("hi", tools=[TOOL] * 40), CLASS, 455),
    "nested": (CHAT, chat(deep(200)), CLASS, 5),
    "prompts": (COMPLETIONS, {"model": "m", "prompt": ["a"] * 5},
                TokenEstimate(80, 80, "max_tokens"), 2),
    "all that can be asked for": (
        COMPLETIONS, {"model": "m", "prompt": ["a"] * 3000, "n": 1000, "max_tokens": 10_000_000},
        TokenEstimate(256 * 128 * 2048, 1024 * 128 * 2048, "class"), 751),
    "tokens": (COMPLETIONS, {"model": "m", "prompt": [7] * 1000},
               TokenEstimate(16, 16, "max_tokens"), 1001),
    "responses": (RESPONSES, {"model": "m", "input": WORDS, "instructions": WORDS}, CLASS, 3001),
    "embeddings": (EMBEDDINGS, {"model": "m", "input": [WORDS] * 10},
                   TokenEstimate(1, 1, "endpoint"), 15001),
    "two images": (IMAGES, {"model": "m", "prompt": WORDS, "n": 2},
                   TokenEstimate(2112, 8320, "endpoint"), 1501),
    "moderations": (MODERATIONS, {"model": "m", "input": WORDS},
                    TokenEstimate(1, 1, "endpoint"), 1501),
    "rerank": (RERANK, {"model": "m", "query": "q", "documents": [WORDS] * 2},
               TokenEstimate(1, 1, "endpoint"), 3001),
}  # fmt: skip
EVERY_DOOR = pytest.mark.parametrize("door", DOORS)


def facts(request: Request) -> tuple[str, str, TokenEstimate, int]:
    return (request.traffic_class, request.model, request.estimate, request.prompt_tokens)


@EVERY_DOOR
@pytest.mark.parametrize("name", BODIES)
def test_a_body_is_the_same_request_at_every_door(name: str, door: str) -> None:
    endpoint, body, estimate, prompt_tokens = BODIES[name]

    request = DOORS[door](endpoint, body, {})

    assert facts(request)[:3] == ("all", "m", estimate)
    assert request.prompt_tokens == pytest.approx(prompt_tokens, abs=6)
    assert facts(request) == facts(DOORS["httpx2 sync"](endpoint, body, {}))


@EVERY_DOOR
def test_no_estimate_is_too_large_for_a_body(door: str, monkeypatch: pytest.MonkeyPatch) -> None:
    large = TokenEstimate(10_000.0, 100_000.0, "class")
    monkeypatch.setattr("tests.calls.doors.CLASS", TrafficClass("all", estimate=large))
    monkeypatch.setattr("tests.calls.doors.TOML", TOML.replace("= 1024", "= 100_000"))
    body = {"model": "m", "prompt": ["a"] * 2048, "n": 128, "max_tokens": 10_000_000}

    request = DOORS[door](COMPLETIONS, body, {})

    assert request.estimate.p90_tokens == LARGEST_ESTIMATE_TOKENS
    assert request.cap_tokens == LARGEST_ESTIMATE_TOKENS


@EVERY_DOOR
def test_hints_are_the_same_at_every_door(door: str) -> None:
    hints = {
        "x-penstock-class": "all",
        "x-penstock-tenant": "reports",
        "x-penstock-session": "s1",
        "x-penstock-route": "summaries",
        "x-penstock-tokens": "40,90",
        "x-penstock-deadline-ms": "30000",
    }

    request = DOORS[door](CHAT, chat("hi", max_tokens=60), hints)

    assert (request.tenant, request.session, request.route) == ("reports", "s1", "summaries")
    assert request.estimate == TokenEstimate(40, 60, "caller")
    assert request.deadline - request.arrived_at == pytest.approx(30.0)
    assert not math.isinf(request.expires_at) or door == "sidecar"


@pytest.mark.parametrize("door", [d for d in DOORS if "sync" in d])
@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'{"model": NaN', b"\xff\xfe"])
def test_what_is_no_json_goes_out_with_a_default_estimate(body: bytes, door: str) -> None:
    assert facts(DOORS[door](CHAT, body, {})) == ("all", "", CLASS, 0)


@pytest.mark.parametrize("door", [d for d in DOORS if "sync" in d or d == "sidecar"])
@pytest.mark.parametrize("encoding", ["utf-8", "gzip"])
def test_what_only_some_read_is_the_same_request(door: str, encoding: str) -> None:
    body = {**chat(WORDS, max_tokens=100), "temperature": 1.0}
    sent = json.dumps({**body, "temperature": float("nan"), "user": "é"}, ensure_ascii=False)

    request = DOORS[door](CHAT, sent.encode("latin-1"), {"content-encoding": encoding})

    assert facts(request)[:3] == facts(DOORS[door](CHAT, body, {}))[:3]


@pytest.mark.parametrize("door", [d for d in DOORS if "sync" in d or d == "sidecar"])
def test_a_packed_body_is_the_same_request(door: str) -> None:
    body = chat(WORDS, max_tokens=100)
    packed = gzip.compress(json.dumps(body).encode())

    request = DOORS[door](CHAT, packed, {"content-encoding": "gzip"})

    assert facts(request) == facts(DOORS[door](CHAT, body, {}))
