"""One body through every door: what the scheduler is told of it there."""

import asyncio
import json
from collections.abc import Callable
from typing import Any

import httpx
import httpx2

import penstock
from penstock import Penstock, TokenEstimate, TrafficClass, Usage
from penstock.batch.lines import parse_line
from penstock.batch.sending import HttpSend
from penstock.calls.endpoint import Endpoint
from penstock.core.events import Arrived
from penstock.core.model import Request
from penstock.proxy.bodies import Held
from penstock.proxy.config import loads
from penstock.proxy.sidecar import Sidecar
from penstock.runtime.accounts import account_of
from tests.integrations.http.rig import Tape

CLASS = TrafficClass("all", estimate=TokenEstimate(256, 1024, "class"))
REPLY = {
    "choices": [{"message": {}, "text": ""}],
    "content": [],
    "output": [],
    "data": [{"embedding": [0.5]}],
    "results": [{}],
    "usage": {"prompt_tokens": 3, "completion_tokens": 7},
}
TOML = """
[[upstreams]]
base_url = "http://h/v1"
[[upstreams]]
name = "claude"
dialect = "anthropic"
base_url = "http://h/v1"
[[classes]]
name = "all"
estimate = { p50_tokens = 256, p90_tokens = 1024 }
buckets = ["short", "medium", "long", "xlong"]
[predictor]
kind = "off"
[anonymous]
may_state_tokens = true
may_name_tenant = true
may_ask = ["*"]
shortest_deadline_s = 0.001
"""
Headers = dict[str, str]
Door = Callable[[Endpoint, Any, Headers], Request]


def _program(tape: Tape) -> Penstock:
    return Penstock(classes=(CLASS,), observers=[tape], tracer=None)


def _told(tape: Tape) -> Request:
    (arrived,) = tape.of(Arrived)
    request: Request = arrived.request
    return request


def written(body: Any) -> bytes:
    """As a client writes it; bytes are taken as they are."""
    return body if isinstance(body, bytes) else json.dumps(body).encode()


def sync_transport(library: Any) -> Door:
    def door(endpoint: Endpoint, body: Any, headers: Headers) -> Request:
        tape = Tape()
        inner = library.MockTransport(lambda _request: library.Response(200, json=REPLY))
        with _program(tape).client(library=library.__name__, transport=inner) as client:
            url = "http://provider.example" + endpoint.path
            client.post(url, content=written(body), headers=headers).raise_for_status()
        return _told(tape)

    return door


def async_transport(library: Any) -> Door:
    def door(endpoint: Endpoint, body: Any, headers: Headers) -> Request:
        tape = Tape()

        async def main() -> None:
            inner = library.MockTransport(lambda _request: library.Response(200, json=REPLY))
            scheduled = _program(tape)
            async with scheduled.async_client(library=library.__name__, transport=inner) as client:
                url = "http://provider.example" + endpoint.path
                reply = await client.post(url, content=written(body), headers=headers)
                reply.raise_for_status()

        asyncio.run(main())
        return _told(tape)

    return door


def batch(endpoint: Endpoint, body: Any, headers: Headers) -> Request:
    tape = Tape()
    line = parse_line(1, written({"custom_id": "a", "url": endpoint.path, "body": body}))

    async def main() -> None:
        scheduled = _program(tape)
        send = HttpSend("http://provider.example/v1", None, scheduled)
        inner = httpx2.MockTransport(lambda _request: httpx2.Response(200, json=REPLY))
        send._client = scheduled.async_client(library="httpx2", transport=inner, headers=headers)
        await send(line, deadline_s=None)

    asyncio.run(main())
    return _told(tape)


def _words(endpoint: Endpoint, body: Any, headers: Headers) -> dict[str, Any]:
    """Return a gate's keywords for what the headers say."""
    words: dict[str, Any] = {"body": body, "endpoint": endpoint.kind.value}
    for name, word in headers.items():
        key = name.removeprefix("x-penstock-")
        if key == "tokens":
            words["tokens"] = tuple(float(each) for each in word.split(","))
        elif key == "deadline-ms":
            words["deadline_s"] = float(word) / 1000
        else:
            words["class_" if key == "class" else key] = word
    return words


def gate(endpoint: Endpoint, body: Any, headers: Headers) -> Request:
    tape = Tape()
    with _program(tape).sync_gate().admit(**_words(endpoint, body, headers)) as slot:
        slot.settle(Usage(7))
    return _told(tape)


def decorator(endpoint: Endpoint, body: Any, headers: Headers) -> Request:
    tape = Tape()

    @penstock.scheduled(penstock=_program(tape), **_words(endpoint, body, headers))
    def call() -> None:
        return None

    call()
    return _told(tape)


def sidecar(endpoint: Endpoint, body: Any, headers: Headers) -> Request:
    """The sidecar's reader and its gate, without sockets."""
    tape = Tape()

    async def main() -> None:
        parts = Sidecar(loads(TOML, env={}), observers=[tape])
        sent = written(body)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": sent, "more_body": False}

        sent_headers = {"authorization": "Bearer k", **headers}
        raw = [(name.encode(), value.encode()) for name, value in sent_headers.items()]
        prepared = await parts.reader.prepare(
            endpoint, raw, receive, Held(parts.room, account_of(raw))
        )
        async with parts.gate.admit(prepared.spec) as slot:
            slot.settle(Usage(7))

    asyncio.run(main())
    request = _told(tape)
    request.model = request.model.partition("/")[2]  # the scheduler's name has the dialect
    return request


DOORS: dict[str, Door] = {
    "sidecar": sidecar,
    "httpx2 sync": sync_transport(httpx2),
    "httpx2 async": async_transport(httpx2),
    "httpx sync": sync_transport(httpx),
    "httpx async": async_transport(httpx),
    "batch": batch,
    "gate": gate,
    "decorator": decorator,
}
