"""Signs of life for a caller that asked for them while its request waits, until its reply begins.

A stream gets comments (`: ...`), which every reader of server-sent events passes over; a whole JSON
reply gets blank lines before it, which JSON allows. Either way the answer's status is 200 from the
first sign on, so that a refusal after it comes as an error in the body.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from penstock.proxy.declined import Declined
from penstock.proxy.headers import EVENT_HEADERS, Header, Send, one
from penstock.proxy.request_reader import Prepared

EVERY_S = 2.0
"""Balancers close what is silent for 30 to 60 s; people look after a second or two."""


class Progress:
    """Stands between an exchange and its caller, and speaks while the exchange is silent."""

    def __init__(self, send: Send, *, is_stream: bool) -> None:
        """Send to `send`."""
        self._send = send
        self._is_stream = is_stream
        self._begun = False
        self._answered = False
        self._in_stream = False
        self._body = b""
        self._turn = asyncio.Lock()

    @contextlib.asynccontextmanager
    async def speaking(self, told: Callable[[], str]) -> AsyncIterator[None]:
        """Give signs of life within, until the answer begins.

        Args:
            told: says in a line what the request waits for.

        """
        task = asyncio.ensure_future(self._speak(told))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)  # a caller that left hears nothing

    async def _speak(self, told: Callable[[], str]) -> None:
        while True:
            await asyncio.sleep(EVERY_S)
            async with self._turn:
                if self._answered:
                    return
                if not self._begun:
                    self._begun = True
                    whole = ((b"content-type", b"application/json"),)
                    kind = EVENT_HEADERS if self._is_stream else whole
                    headers = [*kind, (b"cache-control", b"no-store")]
                    start = {"type": "http.response.start", "status": 200, "headers": headers}
                    await self._send(start)
                await self._piece(_comment(told()) if self._is_stream else b"\n")

    async def send(self, message: dict[str, Any]) -> None:
        """Pass on the exchange's answer, without its head if there was a sign of life before."""
        async with self._turn:
            self._answered = True
            if not self._begun:
                await self._send(message)
            elif message["type"] == "http.response.start":
                await self._head(message)
            elif self._in_stream or not self._is_stream:
                await self._send(message)
            else:  # an error, or JSON where a stream was due: one event, once it is whole
                self._body += message.get("body", b"")
                if not message.get("more_body", False):
                    await self._piece(_event(self._body), more=False)

    async def _head(self, message: dict[str, Any]) -> None:
        if not self._is_stream:
            return
        headers: list[Header] = message["headers"]
        kind = one(headers, b"content-type") or b""
        self._in_stream = message["status"] < 400 and not kind.startswith(b"application/json")
        ours = [
            f"{name.removeprefix(b'x-penstock-').decode()}={value.decode('latin-1')}"
            for name, value in headers
            if name.startswith(b"x-penstock-")
        ]
        await self._piece(_comment(" ".join(ours)))

    async def _piece(self, data: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": more})


def _comment(text: str) -> bytes:
    return f": penstock {text}\n\n".encode()


def _event(body: bytes) -> bytes:
    return b"event: error\ndata: " + b" ".join(body.split(b"\n")) + b"\n\n"


def progress_of(word: bytes, prepared: Prepared, send: Send) -> Progress:
    """Return who gives the signs of life that a caller asks for.

    Raises:
        Declined: 400, for a word that is none or does not fit the reply.

    """
    if word == b"sse" and prepared.facts.streams:
        return Progress(send, is_stream=True)
    if word == b"blank" and not prepared.facts.streams and prepared.endpoint.answers_json:
        return Progress(send, is_stream=False)
    raise Declined(
        400,
        "invalid_header",
        "x-penstock-progress must be sse, with stream: true in the body, or blank, for a reply "
        "that is one JSON object.",
    )
