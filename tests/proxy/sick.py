"""Two upstreams, one of them sick in some way: how many calls are served all the same?

    python -m tests.proxy.sick

prints a row for each way. Every second call asks for a stream.
"""

import asyncio
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.client import HTTPException

from tests.listening import listening_apart
from tests.proxy.sidecars import HELLO, call, sidecar

CALLS = 30
USAGE = {"prompt_tokens": 3, "completion_tokens": 2}
GOOD = json.dumps(
    {"choices": [{"message": {"content": "well"}, "finish_reason": "stop"}], "usage": USAGE}
).encode()
EVENT = b'data: {"choices":[{"index":0,"delta":{"content":"well"},"finish_reason":"stop"}]}\n\n'
GOOD_STREAM = EVENT + b"data: [DONE]\n\n"
RESET = b""
SILENT = b"silent"


def answer(
    status: int | str, body: bytes = b"", kind: str = "application/json", more: str = ""
) -> bytes:
    head = f"HTTP/1.1 {status} Words\r\ncontent-type: {kind}\r\n{more}"
    return head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body


def cut(body: bytes, kind: str = "application/json") -> bytes:
    """Return an answer that ends before its stated length."""
    return answer(200, body + b"    ", kind)[:-4]


def until_close(body: bytes, kind: str = "application/json") -> bytes:
    return f"HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n\r\n".encode() + body


SSE = "text/event-stream"
PAGE = b"<!doctype html><title>Sign in</title>"
ERROR = b'{"error": {"message": "it broke", "code": 502}}'
OVERLOADED = b'{"error": {"type": "overloaded_error", "message": "overloaded"}}'

WAYS: dict[str, bytes] = {
    "500": answer(500, ERROR),
    "500, not to be repeated": answer(500, ERROR, more="x-should-retry: false\r\n"),
    "429, not to be repeated": answer(429, ERROR, more="x-should-retry: false\r\n"),
    "500 without a body": answer(500),
    "501": answer(501, ERROR),
    "502 with a page": answer(502, PAGE, "text/html"),
    "503": answer(503, OVERLOADED),
    "504": answer(504, PAGE, "text/html"),
    "507": answer(507, ERROR),
    "520": answer(520, PAGE, "text/html"),
    "529": answer(529, OVERLOADED),
    "530": answer(530, PAGE, "text/html"),
    "599": answer(599),
    "429 for a minute": answer(429, b"{}", more="retry-after: 60\r\n"),
    "429, the account is spent": answer(429, b'{"error": {"code": "insufficient_quota"}}'),
    "401": answer(401, b'{"error": {"message": "bad key"}}'),
    "403": answer(403, b'{"error": {"message": "no"}}'),
    "405 with a page": answer(405, PAGE, "text/html"),
    "413 with a page": answer(413, PAGE, "text/html"),
    "400 without a body": answer(400),
    "404": answer(404, b'{"error": {"message": "no such model"}}'),
    "408": answer(408),
    "499": answer(499, b'{"error": {"status": "CANCELLED", "message": "cancelled"}}'),
    "200 with an error object": answer(200, ERROR),
    "200 with an overload": answer(200, OVERLOADED),
    "200 with an error that is a text": answer(200, b'{"error": "it broke"}'),
    "200 with an error in its choice": answer(200, b'{"choices": [{"error": {"code": 502}}]}'),
    "200 with vLLM's error": answer(200, b'{"object": "error", "message": "x", "code": 500}'),
    "200 with an empty body": answer(200),
    "200 with blanks": answer(200, b" \n \n"),
    "200 with a page": answer(200, PAGE, "text/html"),
    "200 with a page called JSON": answer(200, PAGE),
    "200 with a text": answer(200, b"upstream connect error", "text/plain"),
    "200 with an empty object": answer(200, b"{}"),
    "200 with a list": answer(200, b"[]"),
    "200 with null": answer(200, b"null"),
    "200 without choices": answer(200, b'{"id": "x", "usage": {}}'),
    "200 with no choice": answer(200, b'{"choices": []}'),
    "200 with a choice of null": answer(200, b'{"choices": [null]}'),
    "200 with a message of null": answer(200, b'{"choices": [{"message": {"content": null}}]}'),
    "200 with half a reply": answer(200, GOOD[:40]),
    "200 cut before its length": cut(GOOD[:40]),
    "200 cut at its connection's end": until_close(GOOD[:40]),
    "204": b"HTTP/1.1 204 Nothing\r\n\r\n",
    "206": answer(206, GOOD[:40]),
    "301": answer(301, PAGE, "text/html", "location: http://127.0.0.1:9/\r\n"),
    "307": answer(307, more="location: /v1/elsewhere\r\n"),
    "a stream that begins with an error": answer(200, b"data: " + OVERLOADED + b"\n\n", SSE),
    "a stream with a comment, then an error": answer(
        200, b": hello\n\ndata: " + OVERLOADED + b"\n\n", SSE
    ),
    "a stream with a role, then an error": answer(
        200, b'data: {"choices":[{"delta":{"role":"assistant"}}]}\n\ndata: ' + ERROR + b"\n\n", SSE
    ),
    "a stream of a detail and its end": answer(
        200, b'data: {"detail": "Internal error"}\n\ndata: [DONE]\n\n', SSE
    ),
    "an empty stream": answer(200, b"", SSE),
    "a stream of nothing but its end": answer(200, b"data: [DONE]\n\n", SSE),
    "a stream that ends before its end": until_close(b": hello\n\n", SSE),
    "an event stream with JSON's error": answer(200, ERROR, SSE),
    "bytes that are no HTTP": b"SSH-2.0-OpenSSH_9.6\r\n",
    "an endless head": b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000,
    "closed at once": RESET,
    "silent, and the call may be repeated": SILENT,
}


class Upstream:
    """An upstream that answers each request with the same bytes; well if they are None."""

    def __init__(self, sick: bytes | None) -> None:
        self._sick = sick
        self.asked = 0
        self.port = 0

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            body = await reader.readexactly(length)
            self.asked += 1
            if self._sick is None:
                streams = json.loads(body).get("stream")
                writer.write(answer(200, GOOD_STREAM, SSE) if streams else answer(200, GOOD))
            elif self._sick is SILENT:
                await reader.read()
                return
            else:
                writer.write(self._sick)
                await writer.drain()
                return

    @contextmanager
    def running(self) -> Iterator["Upstream"]:
        with listening_apart(self._serve) as self.port:
            yield self


def served(way: str) -> tuple[int, int]:
    """Return how many of `CALLS` calls were served, and how often the sick one was asked."""
    sick, well = Upstream(WAYS[way]), Upstream(None)
    with sick.running(), well.running(), sidecar(_config(sick.port, well.port)) as proxy:

        def one(number: int) -> bool:
            streams = number % 2 == 1
            body = {**HELLO, "stream": True} if streams else HELLO
            try:
                reply = call(proxy.port, body=body, headers={"idempotency-key": f"k{number}"})
            except (OSError, HTTPException):
                return False
            return reply.status == 200 and reply.body == (GOOD_STREAM if streams else GOOD)

        with ThreadPoolExecutor(4) as callers:
            good = sum(callers.map(one, range(CALLS)))
    return good, sick.asked


def _config(sick: int, well: int) -> str:
    tables = "".join(
        f'[[upstreams]]\nname = "{name}"\nbase_url = "http://127.0.0.1:{port}/v1"\nauth = "none"\n'
        f"first_byte_timeout_s = {patience_s}\n"
        # The well one has all the time that a busy machine may take.
        for name, port, patience_s in (("sick", sick, 1.0), ("well", well, 20.0))
    )
    return f"[server]\nport = 0\n[admin]\nport = 0\n{tables}"


def main() -> int:
    """Print the table; return 1 if a call of any row was not served."""
    short = False
    print(f"{'sick upstream':44} {'served':>8} {'sick was asked':>15}")
    for way in WAYS:
        good, asked = served(way)
        short = short or good < CALLS
        print(f"{way:44} {f'{good}/{CALLS}':>8} {asked:15}", flush=True)
    return int(short)


if __name__ == "__main__":
    raise SystemExit(main())
