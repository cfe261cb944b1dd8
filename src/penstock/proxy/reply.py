"""Answers on their way to the caller: ours, and the upstream's with our headers on it."""

import math
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from penstock.proxy.headers import Header, text_headers
from penstock.wire.errors import MAX_RETRY_AFTER_S, OwnAnswer
from penstock.wire.waits import retry_after_s

Send = Callable[[dict[str, Any]], Awaitable[None]]

_WAITS = (b"retry-after", b"retry-after-ms", b"x-should-retry")


@dataclass(slots=True)
class Kept:
    """An upstream's refusal, read whole, in case it becomes the caller's answer."""

    status: int
    headers: list[Header]
    body: bytes


async def send_whole(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """Send a complete answer, its length stated."""
    headers = [item for item in headers if item[0] != b"content-length"]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_answer(send: Send, answer: OwnAnswer) -> None:
    """Send an answer of our own."""
    headers = [(k.encode(), v.encode("latin-1")) for k, v in answer.headers.items()]
    await send_whole(send, answer.status, headers, answer.body)


def saying(send: Send, header: Header) -> Send:
    """Return a way to send by which an answer has one more header."""

    async def send_more(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message["headers"], header]}
        await send(message)

    return send_more


def without_advice(kept: Kept) -> Kept:
    """Return an upstream's answer without its own word on whether to try again."""
    headers = [item for item in kept.headers if item[0] != b"x-should-retry"]
    return Kept(kept.status, headers, kept.body)


def with_bounded_wait(kept: Kept) -> tuple[Kept, list[Header]]:
    """Return the refusal that penstock gave up on; whether to try again is the SDK's to say.

    Its next attempt waits for the scheduler like any other. Only a wait beyond the bound, which
    would stop a client for days, is left out, and the SDK is told not to try again; the provider's
    own wish stays readable in `x-penstock-upstream-retry-after-s`.
    """
    wait_s = retry_after_s(text_headers(kept.headers), wall_now=time.time())
    if wait_s is None or wait_s <= MAX_RETRY_AFTER_S:
        return kept, []
    kept = without_advice(kept)
    ours: list[Header] = [(b"x-should-retry", b"false")]
    headers = [item for item in kept.headers if item[0] not in _WAITS]
    ours.append((b"x-penstock-upstream-retry-after-s", b"%d" % math.ceil(wait_s)))
    return Kept(kept.status, headers, kept.body), ours
