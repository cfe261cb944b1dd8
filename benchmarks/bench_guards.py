"""What the gate for numbers from outside and the guards around readers cost, in one run.

    python benchmarks/bench_guards.py [--requests 50]

They cannot be switched off, so their work is counted beside the rest of the same requests: the
byte codes that Python runs for each, which no load of the machine changes. What C does of a
request (reading HTTP and JSON) is not counted, so the share of the whole is smaller than shown.
"""

import argparse
import asyncio
import json
import sys
from collections import Counter
from types import CodeType, FrameType
from typing import Any

import httpx2

from penstock import Penstock
from penstock.proxy.config import loads
from penstock.proxy.server import Running

LIMIT = 0.05
GATE = ("core/bounds.py", "core/rule.py")
GUARDS = ("core/containment.py", "runtime/guarded.py")
OF_A_REQUEST = ("penstock", "aiohttp", "httpx2", "httpcore2", "h11", "anyio")
"""Packages; the provider, its caller and the event loop are no part of it."""
EVENTS = 20
USAGE = {"prompt_tokens": 3, "completion_tokens": EVENTS}
MESSAGE = {"choices": [{"index": 0, "message": {"content": "ho"}}], "usage": USAGE}
DELTA = {"choices": [{"index": 0, "delta": {"content": "a"}}]}
LIMITS = {
    "x-ratelimit-limit-requests": "100000",
    "x-ratelimit-remaining-requests": "99999",
    "x-ratelimit-reset-requests": "6ms",
}
TOML = """
[server]
port = 0
[admin]
enabled = false
[[upstreams]]
base_url = "http://127.0.0.1:{port}/v1"
auth = "none"
"""


class Counted:
    """How many byte codes were run, by whose they are."""

    def __init__(self) -> None:
        self.of: Counter[str] = Counter()
        self._whose: dict[CodeType, str] = {}

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        """Trace a call, then each byte code of it."""
        whose = self._whose.get(frame.f_code)
        if whose is None:
            whose = self._whose[frame.f_code] = _whose(frame.f_code.co_filename)
        if event == "call":
            frame.f_trace_lines, frame.f_trace_opcodes = False, bool(whose)
        elif event == "opcode":
            self.of[whose] += 1
        return self if whose else None


def _whose(path: str) -> str:
    if path.endswith(GATE):
        return "gate"
    if path.endswith(GUARDS):
        return "guards"
    return "rest" if any(f"/{each}/" in path for each in OF_A_REQUEST) else ""


def reply(*, streams: bool) -> bytes:
    """Return what the provider sends."""
    body = json.dumps(MESSAGE).encode()
    if streams:
        events = [DELTA] * EVENTS + [{"choices": [], "usage": USAGE}]
        body = b"".join(b"data: " + json.dumps(each).encode() + b"\n\n" for each in events)
        body += b"data: [DONE]\n\n"
    kind = "text/event-stream" if streams else "application/json"
    lines = [f"{name}: {value}" for name, value in {**LIMITS, "content-type": kind}.items()]
    head = "\r\n".join(["HTTP/1.1 200 OK", *lines, f"content-length: {len(body)}"])
    return head.encode() + b"\r\n\r\n" + body


async def provide(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer every request at once."""
    try:
        while True:
            asked = await _message(reader)
            writer.write(reply(streams=b'"stream": true' in asked))
    except (asyncio.IncompleteReadError, asyncio.CancelledError):
        writer.close()


async def _message(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    return await reader.readexactly(int(head.split(b"content-length:")[1].split(b"\r\n")[0]))


def body_of(*, streams: bool) -> bytes:
    """Return a call's body."""
    messages = [{"role": "user", "content": "hello " * 300}]
    return json.dumps({"model": "m", "stream": streams, "messages": messages}).encode()


async def in_sidecar(upstream: int, requests: int, counted: Counted, *, streams: bool) -> None:
    """Count what the sidecar does."""
    running = Running(loads(TOML.format(port=upstream), env={}))
    up = asyncio.Event()
    serving = asyncio.create_task(running.run(started=up.set, signals=False))
    await up.wait()
    body = body_of(streams=streams)
    head = f"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}"
    for number in range(requests + 1):
        if number == 1:  # the first finds everything cold
            sys.settrace(counted)
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        writer.write(head.encode() + b"\r\nconnection: close\r\n\r\n" + body)
        assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()
    sys.settrace(None)
    running.stop()
    await serving


async def in_process(upstream: int, requests: int, counted: Counted, *, streams: bool) -> None:
    """Count what the transport does."""
    url = f"http://127.0.0.1:{upstream}/v1/chat/completions"
    scheduled = Penstock(tracer=None)
    client: httpx2.AsyncClient = scheduled.async_client(library="httpx2")
    body = body_of(streams=streams)
    for number in range(requests + 1):
        if number == 1:
            sys.settrace(counted)
        answer = await client.post(url, content=body)
        assert answer.status_code == 200
    sys.settrace(None)
    await client.aclose()
    scheduled.close()


async def measure(requests: int) -> bool:
    """Print a row for each door; return whether all shares are within the limit."""
    server = await asyncio.start_server(provide, "127.0.0.1", 0)
    upstream = server.sockets[0].getsockname()[1]
    within = True
    print("door, reply            | byte codes a request | gate | guards | share")
    for door in (in_sidecar, in_process):
        for streams in (False, True):
            counted = Counted()
            await door(upstream, requests, counted, streams=streams)
            gate, guards = counted.of["gate"], counted.of["guards"]
            share = (gate + guards) / counted.of.total()
            within = within and share <= LIMIT
            row = f"{door.__name__}, {'streamed' if streams else 'whole'}"
            each = counted.of.total() / requests
            print(
                f"{row:22} | {each:20.0f} | {gate / requests:4.0f} | {guards / requests:6.0f}"
                f" | {share:.1%}"
            )
    server.close()
    return within


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--requests", type=int, default=50)
    within = asyncio.run(measure(parser.parse_args().requests))
    print("within 5 %" if within else "above 5 %")
    return int(not within)


if __name__ == "__main__":
    sys.exit(main())
