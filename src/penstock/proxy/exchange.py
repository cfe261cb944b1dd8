"""One scheduled request, from the gate to its last byte.

Nothing is sent twice once a byte of a reply has gone to the caller; until then an attempt that
fails goes back to the scheduler, which alone decides whether there is another.
"""

import time
from typing import Protocol

from penstock.core.events import LimitsSeen, RefusalCause
from penstock.errors import Refused
from penstock.integrations.wire.endpoint import Vendor
from penstock.integrations.wire.errors import error_answer, refusal_answer
from penstock.integrations.wire.limits import limits_of
from penstock.integrations.wire.refusal import Backoff, Broken, meaning_of
from penstock.integrations.wire.stream import StreamReader
from penstock.integrations.wire.usage import UNKNOWN, usage_of_reply
from penstock.proxy.estimating import Estimator
from penstock.proxy.headers import Header, upward
from penstock.proxy.intake import Prepared
from penstock.proxy.link import Link
from penstock.proxy.observe.metrics import Metrics
from penstock.proxy.reply import (
    Kept,
    Send,
    read_headers,
    send_answer,
    send_whole,
    text_headers,
    with_bounded_wait,
)
from penstock.proxy.upstream.errors import DialError, SilenceError, UpstreamError
from penstock.proxy.upstream.pool import Answer
from penstock.runtime.gate import Gate
from penstock.runtime.slot import Slot, Usage

HELD_BYTES = 1 << 20
"""A reply that is no stream is held back until complete, so that a break in it can still be
retried; beyond this size it is relayed as it comes."""

ERROR_BYTES = 1 << 18
"""How much of an upstream's error is read before it is judged."""


class Parts(Protocol):
    """What exchanges share."""

    gate: Gate
    links: dict[str, Link]
    estimator: Estimator
    metrics: Metrics


class Exchange:
    """Relays one request."""

    __slots__ = (
        "_caller_headers", "_kept", "_parts", "_prepared", "_send", "_sent_at", "_target",
        "outcome", "status",
    )  # fmt: skip

    def __init__(
        self, parts: Parts, prepared: Prepared, headers: list[Header], query: bytes, send: Send
    ) -> None:
        """Prepare; `run` does it."""
        self._parts = parts
        self._prepared = prepared
        self._caller_headers = headers
        self._send = send
        self._target = prepared.route.tail + (b"?" + query if query else b"")
        self._kept: Kept | None = None
        self._sent_at = 0.0
        self.outcome = "cancelled"
        self.status = 0

    async def run(self) -> None:
        """Wait for a slot, relay, and answer whatever comes of it."""
        try:
            async with self._parts.gate.admit(self._prepared.spec) as slot:
                while not await self._attempt(slot):
                    pass
        except Refused as refused:
            await self._refuse(refused)

    async def _attempt(self, slot: Slot) -> bool:
        """Send once; False if the scheduler has dispatched it again."""
        link = self._parts.links[slot.upstream]
        count = self._parts.metrics.attempts.add
        self._sent_at = self._parts.gate.driver.now()
        headers = upward(self._caller_headers, keep_credentials=link.wants_caller_key)
        try:
            answer = await link.send(b"POST", self._target, headers, self._prepared.body)
        except UpstreamError as error:
            count(link.name, _broken_how(error))
            await self._try_elsewhere(slot, error)
            return False
        try:
            seen = read_headers(answer.headers)
            if seen.states_limits:
                self._learn_limits(link, slot.request.model, answer.headers)
            if answer.status >= 400:
                return await self._judge(slot, link, answer)
            try:
                relay = self._stream if seen.is_stream else self._whole
                started = await relay(slot, link, answer, seen.kept)
            except UpstreamError as error:
                count(link.name, _broken_how(error))
                await self._try_elsewhere(slot, error)
                return False
            count(link.name, "complete" if started else "broken_midway")
            return True
        finally:
            answer.close()

    # Replies

    async def _whole(self, slot: Slot, link: Link, answer: Answer, headers: list[Header]) -> bool:
        body = await answer.chunk()
        if not answer.complete:
            pieces, size = [body], len(body)
            while data := await answer.chunk():
                pieces.append(data)
                size += len(data)
                if size > HELD_BYTES:
                    return await self._pass_on(slot, answer, headers, b"".join(pieces), None)
            body = b"".join(pieces)
        self._settle(slot, usage_of_reply(self._prepared.route.kind, body))
        headers += self._ours(slot.id, "dispatched", slot.queued_s)
        await send_whole(self._send, answer.status, headers, body)
        self._ended("completed", answer.status)
        return True

    async def _stream(self, slot: Slot, link: Link, answer: Answer, headers: list[Header]) -> bool:
        first = await answer.chunk()
        slot.first_token()
        self._parts.metrics.first_token.add(
            self._parts.gate.driver.now() - self._sent_at, link.name
        )
        reader = StreamReader(self._prepared.route.kind)
        return await self._pass_on(slot, answer, headers, first, reader)

    async def _pass_on(
        self,
        slot: Slot,
        answer: Answer,
        headers: list[Header],
        data: bytes,
        reader: StreamReader | None,
    ) -> bool:
        """Relay as it comes; False if the upstream broke off."""
        send = self._send
        headers += self._ours(slot.id, "dispatched", slot.queued_s)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        try:
            while data:
                if reader is not None:
                    reader.feed(data)
                if answer.complete:
                    break
                await send({"type": "http.response.body", "body": data, "more_body": True})
                data = await answer.chunk()
        except UpstreamError:
            # The caller must see that it is cut: the connection is closed without an end mark.
            slot.fail(upstream_fault=True)
            self._ended("broken", answer.status)
            return False
        self._settle(slot, UNKNOWN if reader is None else reader.usage())
        await send({"type": "http.response.body", "body": data, "more_body": False})
        self._ended("completed", answer.status)
        return True

    def _settle(self, slot: Slot, usage: Usage) -> None:
        slot.settle(usage)
        metrics = self._parts.metrics
        metrics.usage.add(usage.source)
        if usage.output_tokens is not None:
            name = slot.request.traffic_class
            metrics.tokens.add(name, "real", by=usage.output_tokens)
            metrics.tokens.add(name, "predicted", by=slot.request.cost_tokens)
            if usage.source == "reported":
                self._parts.estimator.learn(self._prepared.estimated, usage.output_tokens)

    # What went wrong

    async def _judge(self, slot: Slot, link: Link, answer: Answer) -> bool:
        """Answer an upstream's error: to the caller, or to the scheduler."""
        body = b""
        while len(body) < ERROR_BYTES and (data := await _quietly(answer)):
            body += data
        kept = self._kept = Kept(answer.status, answer.headers, body)
        meaning = meaning_of(
            answer.status, text_headers(answer.headers), body, wall_now=time.time()
        )
        answer.close()
        count = self._parts.metrics.attempts.add
        if isinstance(meaning, Backoff):
            count(link.name, f"refused_{meaning.cause.value}")
            await slot.throttled(meaning.cause, meaning.retry_after_s)
            return False
        if isinstance(meaning, Broken):
            count(link.name, "server_error")
            await slot.failed()
            return False
        count(link.name, "caller_error")
        slot.fail(upstream_fault=False)
        await self._relay_kept(kept, self._ours(slot.id, "dispatched", slot.queued_s))
        self._ended("caller_error", kept.status)
        return True

    async def _try_elsewhere(self, slot: Slot, error: UpstreamError) -> None:
        """Tell the scheduler that an attempt broke before its first byte; return if it may go on.

        Raises:
            Refused: it may not.

        """
        self._kept = _own_words(self._prepared.route.vendor, error)
        if isinstance(error, SilenceError):
            await slot.throttled(RefusalCause.SLOW_FIRST_TOKEN)
        else:
            await slot.failed(reached=not isinstance(error, DialError))

    async def _refuse(self, refused: Refused) -> None:
        kept = self._kept
        if refused.reason == "upstream" and kept is not None:
            bounded, wait = with_bounded_wait(kept)
            ours = self._ours(refused.id, "refused:upstream", refused.queued_s)
            await self._relay_kept(bounded, ours + wait)
            self._ended("upstream_error", kept.status)
            return
        prepared = self._prepared
        answer = refusal_answer(
            prepared.route.vendor, refused, deadline_left_s=prepared.deadline_s - refused.queued_s
        )
        await send_answer(self._send, answer)
        self._ended(refused.reason, answer.status)

    async def _relay_kept(self, kept: Kept, ours: list[Header]) -> None:
        sound = read_headers(kept.headers).kept + ours
        headers = [item for item in sound if item[0] != b"content-length"]
        headers.append((b"content-length", b"%d" % len(kept.body)))
        await send_whole(self._send, kept.status, headers, kept.body)

    # Small things

    def _learn_limits(self, link: Link, model: str, headers: list[Header]) -> None:
        stated = text_headers(headers)
        seen = limits_of(link.name, stated, model=model, wall_now=time.time())
        if isinstance(seen, LimitsSeen):
            self._parts.gate.driver.tell(seen)

    @staticmethod
    def _ours(id_: str, decision: str, queued_s: float) -> list[Header]:
        return [
            (b"x-penstock-id", id_.encode()),
            (b"x-penstock-decision", decision.encode()),
            (b"x-penstock-queue-ms", b"%d" % round(queued_s * 1000)),
        ]

    def _ended(self, outcome: str, status: int) -> None:
        self.outcome = outcome
        self.status = status


def _broken_how(error: UpstreamError) -> str:
    if isinstance(error, DialError):
        return "dial_failed"
    return "silent" if isinstance(error, SilenceError) else "broken"


async def _quietly(answer: Answer) -> bytes:
    """Return the next bytes of an error's body; a break in it ends it: the status says enough."""
    try:
        return await answer.chunk()
    except UpstreamError:
        return b""


def _own_words(vendor: Vendor, error: UpstreamError) -> Kept:
    """Return what the caller is told when no upstream's own answer is left to relay."""
    if isinstance(error, SilenceError):
        status, code, text = 504, "upstream_timeout", "The upstream did not answer in time."
    elif isinstance(error, DialError):
        text = "The upstream cannot be reached. Penstock's log says why."
        status, code = 502, "upstream_unreachable"
    else:
        status, code, text = 502, "upstream_broken", "The upstream's answer broke off."
    answer = error_answer(vendor, status, code, text)
    return Kept(status, [(k.encode(), v.encode()) for k, v in answer.headers.items()], answer.body)
