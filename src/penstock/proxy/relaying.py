"""Relays one good answer to the caller: whole, or piece by piece while it is read along."""

from typing import Protocol

from penstock.proxy.observe.metrics import Metrics
from penstock.proxy.reply import Read, Send, our_headers, send_whole
from penstock.proxy.request_reader import Prepared
from penstock.proxy.upstream.client import UpstreamClient
from penstock.proxy.upstream.errors import ResetError, UpstreamError
from penstock.proxy.upstream.http import Answer
from penstock.runtime.gate import Gate
from penstock.runtime.slot import Slot
from penstock.wire.encoding import plain
from penstock.wire.refusal import Meaning, Relay, meaning_of_error
from penstock.wire.usage import Usage, usage_of_reply
from penstock.wire.usage_tap import UsageTap, usage_tap

HELD_BYTES = 1 << 20
"""A reply that is no stream is held back until complete, so that a break in it can still be
retried; beyond this size it is relayed as it comes."""

OPENING_BYTES = 1 << 16
"""A stream is held back until its first event has come whole, but not beyond this size."""

COMPLETE, BROKEN_MIDWAY, CALLER_ERROR = "complete", "broken_midway", "caller_error"


class Parts(Protocol):
    """What exchanges share."""

    gate: Gate
    links: dict[str, UpstreamClient]
    metrics: Metrics


class PageError(UpstreamError):
    """A web page came where an API's answer was due."""


class TurnedError(Exception):
    """A stream began with an error: a refusal, of which nothing was relayed yet."""

    def __init__(self, meaning: Meaning, body: bytes) -> None:
        """Keep what it means, and its bytes."""
        super().__init__("the stream began with an error")
        self.meaning = meaning
        self.body = body


class Relaying:
    """Relays the answers of one request."""

    __slots__ = ("_kind", "_parts", "_prepared", "_send", "_sent_at")

    def __init__(self, parts: Parts, prepared: Prepared, send: Send) -> None:
        """Relay to `send`."""
        self._parts = parts
        self._prepared = prepared
        self._kind = prepared.endpoint.kind
        self._send = send
        self._sent_at = 0.0

    async def run(self, slot: Slot, answer: Answer, seen: Read, sent_at: float) -> str:
        """Relay an answer that is no error; return how the attempt ended.

        Raises:
            UpstreamError: it broke before anything was relayed.
            TurnedError: it is a refusal after all; nothing was relayed.

        """
        self._sent_at = sent_at
        if seen.is_stream:
            return await self._stream(slot, answer, seen)
        return await self._whole(slot, answer, seen)

    async def _whole(self, slot: Slot, answer: Answer, seen: Read) -> str:
        body = await answer.chunk()
        if not answer.complete:
            pieces, size = [body], len(body)
            while data := await answer.chunk():
                pieces.append(data)
                size += len(data)
                if size > HELD_BYTES:
                    reader = usage_tap(self._kind, seen.encoding, is_stream=False)
                    return await self._pass_on(slot, answer, seen, b"".join(pieces), reader)
            body = b"".join(pieces)
        text = plain(body, seen.encoding) if seen.encoding else body
        usage = usage_of_reply(self._kind, text)
        if usage.source == "unknown" and answer.status == 200 and _is_page(seen, text):
            raise PageError("the upstream's answer is a web page")
        self._settle(slot, usage)
        headers = seen.kept + our_headers(slot.id, "dispatched", slot.queued_s)
        await send_whole(self._send, answer.status, headers, body)
        return COMPLETE

    async def _stream(self, slot: Slot, answer: Answer, seen: Read) -> str:
        reader = usage_tap(self._kind, seen.encoding, is_stream=True)
        data = await answer.chunk()
        reader.feed(data)
        while not answer.complete and not reader.heard and len(data) < OPENING_BYTES:
            piece = await answer.chunk()
            reader.feed(piece)
            data += piece
        if reader.error is not None and not reader.started:
            meaning = meaning_of_error(reader.error)
            if not isinstance(meaning, Relay):
                raise TurnedError(meaning, data)
        elif answer.complete and not reader.whole:
            raise ResetError("the upstream ended its stream without an end mark")
        return await self._pass_on(slot, answer, seen, data, reader, fed=True)

    async def _pass_on(
        self,
        slot: Slot,
        answer: Answer,
        seen: Read,
        data: bytes,
        reader: UsageTap,
        *,
        fed: bool = False,
    ) -> str:
        """Relay as it comes, `data` first."""
        send = self._send
        headers = seen.kept + our_headers(slot.id, "dispatched", slot.queued_s)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        if not fed:
            reader.feed(data)
        begun = False
        try:
            while data:
                if not begun and reader.started:
                    begun = True
                    self._first_token(slot)
                if answer.complete:
                    break
                await send({"type": "http.response.body", "body": data, "more_body": True})
                data = await answer.chunk()
                reader.feed(data)
        except UpstreamError:
            # The caller must see that it is cut: the connection is closed without an end mark.
            slot.fail(upstream_fault=True)
            return BROKEN_MIDWAY
        return await self._end(slot, data, reader)

    async def _end(self, slot: Slot, data: bytes, reader: UsageTap) -> str:
        """Relay the last bytes of a reply that the upstream has ended, and judge it."""
        how = COMPLETE
        if reader.error is not None:
            theirs = not isinstance(meaning_of_error(reader.error), Relay)
            how = BROKEN_MIDWAY if theirs else CALLER_ERROR
            slot.fail(upstream_fault=theirs)
        elif reader.whole:
            self._settle(slot, reader.usage())
        else:  # cut, as above, though the upstream calls it an end
            slot.fail(upstream_fault=True)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            return BROKEN_MIDWAY
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
        return how

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


def _is_page(seen: Read, text: bytes) -> bool:
    """Say whether a reply is a web page; JSON or events under a page's name are none."""
    begins = text.lstrip()[:1]
    if begins == b"<":
        return True
    return seen.is_page and begins not in (b"{", b"[") and not text.startswith((b"data:", b":"))
