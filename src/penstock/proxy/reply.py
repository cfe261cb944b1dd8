"""Answers on their way to the caller: ours, and the upstream's with our headers on it."""

import math
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.integrations.wire.errors import MAX_RETRY_AFTER_S, Answer
from penstock.integrations.wire.refusal import retry_after_s
from penstock.proxy.headers import Header, downward

Send = Callable[[dict[str, Any]], Awaitable[None]]

_WAITS = (b"retry-after", b"retry-after-ms", b"x-should-retry")


@dataclass(slots=True)
class Kept:
    """An upstream's refusal, read whole, in case it becomes the caller's answer."""

    status: int
    headers: list[Header]
    body: bytes


async def send_whole(send: Send, status: int, headers: list[Header], body: bytes) -> None:
    """Send a complete answer."""
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": False})


async def send_answer(send: Send, answer: Answer, extra: Mapping[str, str] | None = None) -> None:
    """Send an answer of our own."""
    headers = [(k.encode(), v.encode("latin-1")) for k, v in answer.headers.items()]
    headers += [(k.encode(), v.encode("latin-1")) for k, v in (extra or {}).items()]
    headers.append((b"content-length", b"%d" % len(answer.body)))
    await send_whole(send, answer.status, headers, answer.body)


def text_headers(headers: list[Header]) -> dict[str, str]:
    """Return headers as text, for the wire readers; the first of several counts."""
    found: dict[str, str] = {}
    for name, value in headers:
        found.setdefault(name.decode("latin-1"), value.decode("latin-1"))
    return found


def states_limits(headers: list[Header]) -> bool:
    """Say whether rate-limit headers may be among these; cheap, for every answer."""
    return any(b"ratelimit-" in name for name, _ in headers)


def relayed(headers: list[Header], ours: list[Header]) -> list[Header]:
    """Return the upstream's headers with ours; nobody else's `x-penstock-*` gets through."""
    kept = [item for item in downward(headers) if not item[0].startswith(b"x-penstock-")]
    kept += ours
    return kept


def with_bounded_wait(kept: Kept) -> tuple[Kept, list[Header]]:
    """Return an upstream's refusal without a wait that would stop a client for days, and our word.

    A wait beyond the bound is left out and `x-should-retry: false` says what it means; the
    provider's own wish stays readable in `x-penstock-upstream-retry-after-s`.
    """
    wait_s = retry_after_s(text_headers(kept.headers), wall_now=time.time())
    if wait_s is None or wait_s <= MAX_RETRY_AFTER_S:
        return kept, []
    headers = [item for item in kept.headers if item[0] not in _WAITS]
    ours = [
        (b"x-should-retry", b"false"),
        (b"x-penstock-upstream-retry-after-s", b"%d" % math.ceil(wait_s)),
    ]
    return Kept(kept.status, headers, kept.body), ours
