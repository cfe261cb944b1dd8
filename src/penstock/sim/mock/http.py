"""The little of HTTP that the mock needs, over raw ASGI."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any

import orjson

from penstock.sim.mock.stats import MockStats

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Mapping[str, str]


STATS_PATH = "/mock/stats"
"""Asking for the counters changes none of them but the count of its own path."""


class BodyTooLargeError(Exception):
    """The body passed the limit."""


class ClientLeftError(Exception):
    """The client closed its connection before it had sent its whole body."""


async def read_body(receive: Receive, *, limit_bytes: int) -> bytes:
    """Return the whole request body.

    Raises:
        BodyTooLargeError: more than the limit came.
        ClientLeftError: the client went away first.

    """
    parts: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientLeftError
        part = message.get("body", b"")
        size += len(part)
        if size > limit_bytes:
            raise BodyTooLargeError
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


class Exchange:
    """One call: its headers, its way back, and a watch on the client's connection."""

    def __init__(self, scope: Message, receive: Receive, send: Send, stats: MockStats) -> None:
        self.path: str = scope["path"]
        self.method: str = scope["method"]
        self.headers = {k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]}
        self.send = send
        self.receive = receive
        self.request_id = ""
        self._stats = stats
        self._watch: asyncio.Task[None] | None = None
        self._inside = self.path != STATS_PATH
        if self._inside:
            stats.enter()

    def leave(self) -> None:
        """Count the call out; the first time counts.

        Done before the last byte is sent: a client that has its answer may send its next call
        before this one's handler has returned, and two would be counted where one was.
        """
        if self._inside:
            self._inside = False
            self._stats.leave()

    def watch(self, on_leave: Callable[[], None]) -> None:
        """Call `on_leave` when the client closes its connection."""

        async def wait() -> None:
            while (await self.receive())["type"] != "http.disconnect":
                pass
            on_leave()

        self._watch = asyncio.get_running_loop().create_task(wait())

    async def unwatch(self) -> None:
        """Stop watching the connection."""
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)

    async def answer(
        self,
        status: int,
        body: bytes,
        headers: Headers | None = None,
        *,
        content_type: str = "application/json",
    ) -> None:
        """Send a whole answer."""
        length = {"content-length": str(len(body))}
        await self.start(status, length | dict(headers or {}), content_type=content_type)
        await self.write(body, last=True)

    async def answer_json(
        self, status: int, document: Mapping[str, Any], headers: Headers | None = None
    ) -> None:
        """Send a whole JSON answer."""
        await self.answer(status, orjson.dumps(document), headers)

    async def start(self, status: int, headers: Headers, *, content_type: str) -> None:
        """Send the head of an answer."""
        # Both vendors' names, so that either SDK finds its own.
        ids = {"x-request-id": self.request_id, "request-id": self.request_id}
        pairs = {"content-type": content_type} | ids | dict(headers)
        raw = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in pairs.items()]
        await self.send({"type": "http.response.start", "status": status, "headers": raw})

    async def write(self, body: bytes, *, last: bool = False) -> None:
        """Send a piece of the answer's body."""
        self._stats.bytes_out += len(body)
        if last:
            self.leave()
        await self.send({"type": "http.response.body", "body": body, "more_body": not last})
