"""Relays one good answer to the caller: whole, or piece by piece while it is read along."""

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from penstock.dashboard.state import DashboardState
from penstock.proxy.holders import Holders
from penstock.proxy.observe.metrics import Metrics
from penstock.proxy.reply import Read, Send, our_headers, send_whole
from penstock.proxy.request_reader import Prepared
from penstock.proxy.upstream.client import UpstreamClient
from penstock.proxy.upstream.errors import ResetError, UpstreamError
from penstock.proxy.upstream.http import Answer
from penstock.runtime.gate import Gate
from penstock.runtime.guarded import Guard
from penstock.runtime.slot import Slot
from penstock.wire.encoding import can_read, plain
from penstock.wire.endpoint import Kind
from penstock.wire.refusal import RELAY, Meaning, Relay, meaning_of_error
from penstock.wire.usage import UNKNOWN, Usage
from penstock.wire.usage_tap import KEPT_BYTES, Unread, UsageTap, usage_tap
from penstock.wire.verdict import Verdict, verdict_of_reply, verdict_of_status

OPENING_BYTES, OPENING_S = 1 << 16, 1.0
"""A stream is held back until its first content, so that a refusal at its beginning can be tried
again, but no further and, from its first byte, no longer: then keep-alives go through."""

COMPLETE, BROKEN_MIDWAY, CALLER_ERROR = "complete", "broken_midway", "caller_error"


class Parts(Protocol):
    """What exchanges share."""

    gate: Gate
    links: dict[str, UpstreamClient]
    metrics: Metrics
    guard: Guard
    holders: Holders
    lately: DashboardState


class NotGoodError(Exception):
    """An answer with a good status turned out to be none; nothing of it was relayed yet."""

    def __init__(self, verdict: Verdict, body: bytes) -> None:
        """Keep what it is, and its bytes."""
        super().__init__(verdict.fault)
        self.verdict = verdict
        self.body = body


class Relaying:
    """Relays the answers of one request.

    Attributes:
        learn: told a reply, or its beginning, once it is good; None if nobody cares.

    """

    __slots__ = ("_kind", "_parts", "_prepared", "_send", "_sent_at", "_tap", "learn")

    def __init__(self, parts: Parts, prepared: Prepared, send: Send) -> None:
        """Relay to `send`."""
        self._parts = parts
        self._prepared = prepared
        self._kind = prepared.endpoint.kind
        self._send = send
        self._sent_at = 0.0
        self._tap: UsageTap = Unread()
        self.learn: Callable[[bytes], None] | None = None

    async def run(self, slot: Slot, answer: Answer, seen: Read, sent_at: float) -> str:
        """Relay an answer that is no error; return how the attempt ended.

        Raises:
            UpstreamError: it broke before anything was relayed.
            NotGoodError: it does not hold what was asked for; nothing was relayed.

        """
        self._sent_at = sent_at
        bad = verdict_of_status(answer.status)
        if bad is not None:
            raise NotGoodError(bad, b"")
        data = await answer.chunk()
        if seen.is_stream or self._prepared.streams:
            while not answer.complete and not data.strip() and len(data) < OPENING_BYTES:
                data += await answer.chunk()
            # Asked for a stream, some answer with JSON or a page, whatever they call it.
            if seen.encoding:
                is_stream = seen.is_stream
            else:
                is_stream = data.lstrip()[:1] not in (b"", b"{", b"[", b"<")
            if is_stream:
                return await self._stream(slot, answer, seen, data)
        return await self._whole(slot, answer, seen, data)

    async def _whole(self, slot: Slot, answer: Answer, seen: Read, data: bytes) -> str:
        pieces, size = [data], len(data)
        while not answer.complete:
            # Too large, a sign of life, or sound, which is played while it comes.
            if size > KEPT_BYTES or not pieces[0].strip() or self._is_sound(pieces[0]):
                held = b"".join(pieces)
                self._open_tap(seen, is_stream=False)
                self._feed(held)
                return await self._pass_on(slot, answer, seen, held)
            piece = await answer.chunk()
            pieces.append(piece)
            size += len(piece)
        body = b"".join(pieces)
        verdict = self._verdict(answer.status, seen.encoding, body)
        if not verdict.good:
            raise NotGoodError(verdict, body)
        self._settle(slot, verdict.usage)
        if self.learn is not None:
            self.learn(body)
        headers = seen.kept + our_headers(slot.id, "dispatched", slot.queued_s)
        await send_whole(self._send, answer.status, headers, body)
        return COMPLETE

    def _is_sound(self, data: bytes) -> bool:
        return self._kind is Kind.SPEECH and data.lstrip()[:1] not in (b"{", b"<")

    def _verdict(self, status: int, encoding: str, body: bytes) -> Verdict:
        unread = Verdict(RELAY, status=status)
        if not can_read(encoding):
            return unread
        return self._parts.guard.run(
            "reply",
            lambda: verdict_of_reply(self._kind, status, plain(body, encoding)),
            unread,
        )

    async def _stream(self, slot: Slot, answer: Answer, seen: Read, data: bytes) -> str:
        self._open_tap(seen, is_stream=True)
        self._feed(data)
        now = asyncio.get_running_loop().time
        until = now() + OPENING_S
        while self._still_opening(answer) and len(data) < OPENING_BYTES:
            try:
                async with asyncio.timeout_at(until):
                    piece = await answer.chunk()
            except TimeoutError:
                break
            self._feed(piece)
            data += piece
        tap = self._tap
        if tap.error is not None and not tap.started:
            meaning = self._meaning(tap.error)
            if not isinstance(meaning, Relay):
                verdict = Verdict(meaning, "begins its stream with an error", has_error=True)
                raise NotGoodError(verdict, data)
        elif answer.complete and not tap.whole:
            raise ResetError("the upstream ended its stream without an end mark")
        return await self._pass_on(slot, answer, seen, data)

    def _still_opening(self, answer: Answer) -> bool:
        tap = self._tap
        return not (answer.complete or tap.started or tap.finished or tap.error is not None)

    def _open_tap(self, seen: Read, *, is_stream: bool) -> None:
        unread: UsageTap = Unread()
        self._tap = self._parts.guard.run(
            "stream",
            lambda: usage_tap(self._kind, seen.encoding, is_stream=is_stream),
            unread,
        )

    def _feed(self, data: bytes) -> None:
        try:
            self._tap.feed(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the bytes go through
            self._parts.guard.caught("stream", error)
            self._tap = Unread()

    async def _pass_on(self, slot: Slot, answer: Answer, seen: Read, data: bytes) -> str:
        """Relay as it comes, `data` first, which the tap has read already."""
        send = self._send
        headers = seen.kept + our_headers(slot.id, "dispatched", slot.queued_s)
        if self.learn is not None:
            self.learn(data)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        begun = False
        try:
            while data:
                if not begun and self._tap.started:
                    begun = True
                    self._first_token(slot)
                if answer.complete:
                    break
                await send({"type": "http.response.body", "body": data, "more_body": True})
                data = await answer.chunk()
                self._feed(data)
        except UpstreamError:
            # The caller must see that it is cut: the connection is closed without an end mark.
            slot.fail(upstream_fault=True)
            return BROKEN_MIDWAY
        return await self._end(slot, data)

    async def _end(self, slot: Slot, data: bytes) -> str:
        """Relay the last bytes of a reply that the upstream has ended, and judge it."""
        how, tap = COMPLETE, self._tap
        whole = self._parts.guard.run("reply", lambda: tap.whole, otherwise=True)
        if tap.error is not None:
            meaning = self._meaning(tap.error)
            slot.end_midway(meaning)
            how = CALLER_ERROR if isinstance(meaning, Relay) else BROKEN_MIDWAY
        elif whole:
            self._settle(slot, self._parts.guard.run("reply", tap.usage, UNKNOWN))
        else:  # cut, as above, though the upstream calls it an end
            slot.fail(upstream_fault=True)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            return BROKEN_MIDWAY
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
        return how

    def _meaning(self, error: dict[str, Any]) -> Meaning:
        otherwise: Meaning = RELAY
        return self._parts.guard.run("refusal", lambda: meaning_of_error(error), otherwise)

    def _first_token(self, slot: Slot) -> None:
        slot.first_token()
        took_s = self._parts.gate.driver.now() - self._sent_at
        self._parts.metrics.first_token.add(took_s, slot.upstream)

    def _settle(self, slot: Slot, usage: Usage) -> None:
        slot.settle(usage)
        metrics = self._parts.metrics
        metrics.usage.add(usage.source)
        if usage.output_tokens is not None:
            name = slot.request.traffic_class
            metrics.tokens.add(name, "real", by=usage.output_tokens)
            metrics.tokens.add(name, "predicted", by=slot.request.cost_tokens)
