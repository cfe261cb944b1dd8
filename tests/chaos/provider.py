"""A provider that does anything at all, by chance and by seed, and keeps what it was sent."""

import asyncio
import gzip
import json
import random
import socket
import struct
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.listening import listening

SSE = "text/event-stream"
GOOD, BEGUN, OTHER = "good", "begun", "other"
USAGE = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
NUMBERS = ("0", "-1", "1e300", "1e-300", "nan", "9" * 400, "", ";", "1,2", "86400000", "0.001")
HUGE = (10**400, 10**18, -(10**9), 1e300, True, "many", None)
ODD_HEADERS = (
    "x-ratelimit-limit-requests",
    "x-ratelimit-remaining-requests",
    "x-ratelimit-reset-requests",
    "x-ratelimit-limit-tokens",
    "x-ratelimit-remaining-tokens",
    "x-ratelimit-reset-tokens",
    "anthropic-ratelimit-input-tokens-remaining",
    "ratelimit",
    "ratelimit-policy",
    "date",
    "x-should-retry",
)
REFUSALS = (
    400,
    401,
    402,
    403,
    404,
    408,
    409,
    413,
    422,
    424,
    429,
    429,
    429,
    500,
    502,
    503,
    504,
    529,
)
MESSAGES = (
    "no",
    "Please try again in 20ms.",
    "Request too large for m on tokens per min (TPM): Limit 30000, Requested 45000.",
    "try again in 99999999999999999999s",
    "\ud83d",
)


@dataclass
class Anything:
    """The provider.

    Attributes:
        attempts: what each call, by its number, was answered: good, begun (a stream that shows
            content and then ends in some way) or other.
        extra: whether bytes may follow a reply. httpx and httpx2 take them for the next reply, with
            penstock and without it; the sidecar's own connections must not.

    """

    chance: random.Random
    extra: bool = False
    attempts: dict[int, list[str]] = field(default_factory=lambda: defaultdict(list))
    open: int = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        try:
            while await self._one(reader, writer):
                pass
        finally:  # the client hung up
            self.open -= 1

    async def _one(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        length = int(head.split(b"content-length:")[1].split(b"\r\n")[0])
        asked = json.loads(await reader.readexactly(length))
        return await self._answer(int(asked["user"]), bool(asked.get("stream")), writer)

    async def _answer(self, number: int, streams: bool, writer: asyncio.StreamWriter) -> bool:
        chance = self.chance
        await asyncio.sleep(chance.choice((0.0, 0.0, 0.01, 0.2, 2.0)))
        what = chance.random()
        if what < 0.6:
            self.attempts[number].append(GOOD)
            writer.write(self._good(streams))
            if self.extra and chance.random() < 0.03:
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nodd")  # extra bytes
        elif what < 0.7 and streams:
            self.attempts[number].append(BEGUN)
            return await self._broken_stream(writer)
        elif what < 0.9:
            self.attempts[number].append(OTHER)
            writer.write(self._refusal())
        else:
            self.attempts[number].append(OTHER)
            return await self._nonsense(writer)
        await writer.drain()
        return chance.random() < 0.9

    def _good(self, streams: bool) -> bytes:
        usage = dict(USAGE)
        if self.chance.random() < 0.1:
            usage[self.chance.choice(list(usage))] = self.chance.choice(HUGE)  # type: ignore[assignment]
        if streams:
            events = [_delta("a"), _delta("b"), {"choices": [], "usage": usage}]
            body = b"".join(b"data: " + _dumps(each) + b"\n\n" for each in events)
            return self._head(200, "text/event-stream", body + b"data: [DONE]\n\n")
        message = {"role": "assistant", "content": "ho"}
        reply = {"choices": [{"index": 0, "message": message}], "usage": usage}
        return self._head(200, "application/json", _dumps(reply))

    def _refusal(self) -> bytes:
        error = {"message": self.chance.choice(MESSAGES), "code": None, "type": "x"}
        return self._head(
            self.chance.choice(REFUSALS),
            "application/json",
            _dumps({"error": error}),
            waits=self.chance.random() < 0.3,
        )

    def _head(self, status: int, kind: str, body: bytes, *, waits: bool = False) -> bytes:
        lines = [f"HTTP/1.1 {status} Words", f"content-type: {kind}"]
        if waits:
            lines.append(f"retry-after: {self.chance.choice((*NUMBERS, '0.05', '1'))}")
        if self.chance.random() < 0.1:
            name = self.chance.choice(ODD_HEADERS)
            lines.append(f"{name}: {self.chance.choice(NUMBERS)}")
        if self.chance.random() < 0.05:
            body = gzip.compress(body)
            lines.append("content-encoding: gzip")
        lines.append(f"content-length: {len(body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + body

    async def _broken_stream(self, writer: asyncio.StreamWriter) -> bool:
        head = f"HTTP/1.1 200 OK\r\ncontent-type: {SSE}\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(head.encode())
        for _ in range(self.chance.randrange(1, 4)):
            event = b"data: " + _dumps(_delta("a" * self.chance.choice((1, 5000)))) + b"\n\n"
            writer.write(b"%x\r\n%b\r\n" % (len(event), event))
            await writer.drain()
            # A reset at once would take what was said with it: nobody has seen content then.
            await asyncio.sleep(self.chance.choice((0.05, 0.1, 3.0)))
        if self.chance.random() < 0.5:
            error = b'data: {"error": {"message": "it broke", "code": 500}}\n\n'
            writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(error), error))
        else:
            _reset(writer)
        return False

    async def _nonsense(self, writer: asyncio.StreamWriter) -> bool:
        way = self.chance.randrange(7)
        if way == 0:
            _reset(writer)
        elif way == 1:
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n")
        elif way == 2:
            writer.write(self._head(200, "text/html", b"<html>sign in</html>"))
        elif way == 3:
            writer.write(self._good(streams=False)[:-10])
        elif way == 4:
            writer.write(b"HTTP/1.1 200 OK\r\nx: " + b"y" * 100_000)
        elif way == 5:
            writer.write(self._head(200, "application/json", bytes(range(256))))
        else:
            await asyncio.sleep(20.0)  # beyond the first byte's time
        return False


def _reset(writer: asyncio.StreamWriter) -> None:
    sock: socket.socket = writer.get_extra_info("socket")
    with suppress(OSError):  # the client has closed it already
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _delta(text: str) -> dict[str, object]:
    return {"choices": [{"index": 0, "delta": {"content": text}}]}


def _dumps(value: object) -> bytes:
    return json.dumps(value).encode("utf-8", "surrogatepass")


@asynccontextmanager
async def anything(seed: str, *, extra: bool = False) -> AsyncIterator[tuple[Anything, str]]:
    """Serve on a loopback port; yield the provider and its base URL."""
    provider = Anything(random.Random(seed), extra)
    async with listening(provider.serve) as port:
        yield provider, f"http://127.0.0.1:{port}/v1"
