"""Answers kept for their Idempotency-Key: a call that comes again is not made again.

The first call with a key runs on its own, whoever goes away meanwhile; every caller with the key
and the same body hears its answer from the beginning.
"""

import asyncio
from collections.abc import Callable, Coroutine
from hashlib import blake2b
from typing import Any

from penstock.proxy.declined import Declined
from penstock.proxy.headers import Send

MOST_KEY_BYTES = 255
RECORD_BYTES = 1024
"""What a kept answer takes beside its body."""
REPLAYED = (b"x-penstock-replayed", b"true")


def digest_of(path: bytes, query: bytes, body: bytes) -> bytes:
    """Return what tells one call from another."""
    whole = blake2b(path + b"?" + query + b"\0", digest_size=16)
    whole.update(body)
    return whole.digest()


class Replay:
    """One call and its answer, as far as it has come.

    Attributes:
        digest: of the call.
        until: driver seconds until which its answer is kept.
        ended: whether nothing more will come.
        told: says in a line what the call waits for.

    """

    def __init__(self, digest: bytes, until: float) -> None:
        """Start without an answer."""
        self.digest = digest
        self.until = until
        self.told: Callable[[], str] = str
        self.size_bytes = RECORD_BYTES
        self.ended = False
        self.task: asyncio.Task[None] | None = None
        self._messages: list[dict[str, Any]] = []
        self._more = asyncio.Event()

    @property
    def good(self) -> bool:
        """Whether the answer is whole, and no error."""
        messages = self._messages
        return bool(
            messages and messages[0]["status"] < 400 and messages[-1].get("more_body") is False
        )

    async def take(self, message: dict[str, Any]) -> None:
        """Keep a piece of the answer.

        Raises:
            RuntimeError: it begins a second time, as a listener says it.

        """
        if message["type"] == "http.response.start" and self._messages:
            raise RuntimeError("a reply begins once")
        self._messages.append(message)
        self.size_bytes += len(message.get("body", b""))
        self.wake()

    def wake(self) -> None:
        """Let those that wait look again."""
        self._more.set()
        self._more = asyncio.Event()

    async def play(self, send: Send, *, again: bool) -> None:
        """Send the answer from its beginning; an answer that was cut is cut here as well."""
        at = 0
        while True:
            while at < len(self._messages):
                message = dict(self._messages[at])
                if "headers" in message:
                    message["headers"] = [*message["headers"], *([REPLAYED] if again else [])]
                await send(message)
                at += 1
            if self.ended:
                return
            await self._more.wait()


class Replays:
    """The answers of the last `keep_s` seconds, `most_bytes` in all; the oldest go first."""

    def __init__(self, keep_s: float, most_bytes: int, now: Callable[[], float]) -> None:
        """Keep nothing yet; with `keep_s` of 0 nothing at all."""
        self.keep_s = keep_s
        self.kept_bytes = 0
        self._most_bytes = most_bytes
        self._now = now
        self._known: dict[tuple[bytes, bytes], Replay] = {}

    def find(self, owner: bytes, key: bytes, digest: bytes) -> Replay | None:
        """Return what is known of a key.

        Raises:
            Declined: 409, the key came with another call; 400, it is too long.

        """
        if len(key) > MOST_KEY_BYTES:
            text = f"idempotency-key must not be longer than {MOST_KEY_BYTES} bytes."
            raise Declined(400, "invalid_header", text)
        self._trim()
        found = self._known.get((owner, key))
        if found is not None and found.digest != digest:
            raise Declined(
                409,
                "idempotency_conflict",
                "This Idempotency-Key came with another call before: a new call needs a new key.",
            )
        return found

    def add(self, owner: bytes, key: bytes, digest: bytes) -> Replay:
        """Return the record of a new call; `start` starts it."""
        replay = self._known[owner, key] = Replay(digest, self._now() + self.keep_s)
        return replay

    def start(self, owner: bytes, key: bytes, call: Coroutine[Any, Any, None]) -> None:
        """Start a call, which outlives its caller, and keep its answer if it is good."""
        replay = self._known[owner, key]

        async def run() -> None:
            try:
                await call
            finally:
                replay.ended = True
                self.kept_bytes += replay.size_bytes
                if not replay.good:
                    self._drop((owner, key))
                self._trim()
                replay.wake()

        replay.task = asyncio.get_running_loop().create_task(run())

    def _trim(self) -> None:
        """Drop what is too old or too much; what has not ended yet stays."""
        now = self._now()
        old: list[tuple[bytes, bytes]] = []
        left = self.kept_bytes
        for name, each in self._known.items():  # in the order in which they came
            if not each.ended:
                continue
            if each.until > now and left <= self._most_bytes:
                break
            left -= each.size_bytes
            old.append(name)
        for name in old:
            self._drop(name)

    def _drop(self, name: tuple[bytes, bytes]) -> None:
        self.kept_bytes -= self._known.pop(name).size_bytes
