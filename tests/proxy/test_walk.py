"""The page that draws a request's walk names the files that a request passes, and no others."""

import json
import re
import sys
from contextvars import ContextVar, copy_context
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import uvloop
from aiohttp.web_protocol import RequestHandler

import penstock.predict
from tests.proxy.sidecars import HELLO, SidecarThread, call, eventually, sidecar
from tests.proxy.test_relay import SSE, scripted

SOURCES = Path(penstock.__file__).parent
PAGE = Path(__file__).parents[2] / "docs" / "explanation" / "walk.md"
REPLY = json.dumps(
    {
        "choices": [{"message": {"content": "x"}}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 3},
    }
).encode()
WHOLE = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(REPLY)
) + REPLY
EVENTS = (
    b'data: {"choices":[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}\n\n'
    b'data: {"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":3}}\n\n'
    b"data: [DONE]\n\n"
)
STREAM = SSE + b"%x\r\n%s\r\n0\r\n\r\n" % (len(EVENTS), EVENTS)
WARM_UP = 40


def drawn() -> dict[str, set[str]]:
    """Return the files that the page names, by the heading under which they stand."""
    found: dict[str, set[str]] = {}
    for part in PAGE.read_text().split("\n## ")[1:-1]:  # the last one has figures
        heading, _, text = part.partition("\n")
        found[heading.lower()] = set(re.findall(r"`([a-z_/]+(?:\.py|/))`", text))
    return found


ON_THE_WALK: ContextVar[bool] = ContextVar("ON_THE_WALK", default=False)
"""Set in the context of the watched connection: its task has it, and what that task starts."""


class Walk:
    """The files and calls of penstock that the first connection passes that is made once `on`.

    What the sidecar does beside it, and the timers that it sets, are not counted: how many of them
    fall into its time is a matter of the machine's speed.
    """

    def __init__(self) -> None:
        self.on = False
        self.files: list[str] = []

    def see(self, frame: FrameType, event: str, _argument: object) -> None:
        if event != "call":
            return
        if self.on and frame.f_code is RequestHandler.connection_made.__code__:
            ON_THE_WALK.set(True)
        name = frame.f_code.co_filename
        if name.startswith(f"{SOURCES}/") and ON_THE_WALK.get():
            self.files.append(name.removeprefix(f"{SOURCES}/"))

    @property
    def changes(self) -> int:
        return sum(a != b for a, b in zip(self.files, self.files[1:], strict=False))


class TimersApart(uvloop.Loop):
    """A loop on which what a timer calls is not on the walk of whoever set it."""

    def call_later(self, delay: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return super().call_later(delay, callback, *args, context=_apart(context))

    def call_at(self, when: float, callback: Any, *args: Any, context: Any = None) -> Any:  # type: ignore[override]
        return super().call_at(when, callback, *args, context=_apart(context))


def _apart(context: Any) -> Any:
    context = copy_context() if context is None else context.copy()
    context.run(ON_THE_WALK.set, False)
    return context


def walk(body: dict[str, Any], reply: bytes, monkeypatch: pytest.MonkeyPatch) -> Walk:
    """Return the walk of one request through a warm sidecar with its default configuration."""
    seen = Walk()
    with scripted([reply]) as upstream:
        toml = f"""
        [server]
        port = 0
        [admin]
        port = 0
        [[upstreams]]
        base_url = "http://127.0.0.1:{upstream.port}/v1"
        auth = "none"
        """
        upstream.go(WARM_UP + 1)
        serve = SidecarThread._run

        def watched(thread: SidecarThread) -> None:
            sys.setprofile(seen.see)
            serve(thread)

        # Slow answers make the guard rest its predictor; by a clock that stands none is slow.
        guarded = partial(penstock.predict.GuardedPredictor, clock=lambda: 0.0)
        monkeypatch.setattr(penstock.predict, "GuardedPredictor", guarded)
        monkeypatch.setattr(uvloop, "new_event_loop", TimersApart)
        monkeypatch.setattr(SidecarThread, "_run", watched)
        with sidecar(toml) as proxy:
            assert proxy.running is not None
            predictor = proxy.running.sidecar.predictor
            eventually(lambda: predictor.guard is not None)
            for _ in range(WARM_UP):
                assert call(proxy.port, body=body).status == 200
            eventually(proxy.idle)
            seen.on = True
            assert call(proxy.port, body=body).status == 200
            eventually(proxy.idle)
    return seen


@pytest.mark.parametrize(
    ("body", "reply", "its_part"),
    [(HELLO, WHOLE, "a whole reply"), ({**HELLO, "stream": True}, STREAM, "a stream")],
    ids=["whole", "stream"],
)
def test_the_page_names_the_files_that_a_request_passes(
    body: dict[str, Any], reply: bytes, its_part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = drawn()
    named = page["every request"] | page[its_part]
    left_out = page["now and then"]

    seen = walk(body, reply, monkeypatch)

    passed = set(seen.files)
    print(f"{its_part}: {len(passed)} files, {seen.changes} changes, {len(seen.files)} calls")
    unnamed = {each for each in passed if not any(_covers(name, each) for name in named | left_out)}
    unseen = {name for name in named - left_out if not any(_covers(name, each) for each in passed)}
    assert (unnamed, unseen) == (set(), set())


def _covers(name: str, file: str) -> bool:
    return file.startswith(name) if name.endswith("/") else file == name


def test_the_page_names_files_that_are_there() -> None:
    for name in set.union(*drawn().values()):
        assert (SOURCES / name).exists(), name
