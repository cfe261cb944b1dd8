"""A good answer that is relayed as it comes, and read along for its first token, usage and end."""

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from penstock.proxy.declined import ResetError, UpstreamError
from penstock.proxy.failures import UnusableReplyError
from penstock.proxy.headers import Downward, Send, of_events, our_headers
from penstock.proxy.upstream.http import UpstreamAnswer
from penstock.runtime.slot import Slot
from penstock.wire.endpoint import MEDIA, Kind
from penstock.wire.opening import OPENING_BYTES, OPENING_S, Form, verdict_of_opening
from penstock.wire.refusal import RELAY, Meaning, Relay, meaning_of_error
from penstock.wire.usage import UNKNOWN
from penstock.wire.usage_tap import UnreadableTap, UsageTap, usage_tap

if TYPE_CHECKING:
    from penstock.proxy.sidecar import Sidecar

COMPLETE, BROKEN_MIDWAY, CALLER_ERROR = "complete", "broken_midway", "caller_error"
CALLER_S = 1.0
"""For so long in all, as a short call takes, a reply holds its slot for a caller who reads more
slowly than it comes: the provider has mostly done its work by then. 60 callers who read nothing of
5 MB each held a window of 16 for four minutes."""


class Streamed:
    """Relays one answer piece by piece.

    Attributes:
        data: what has come, and is not relayed yet.

    """

    __slots__ = (
        "_answer", "_kind", "_learn", "_parts", "_seen", "_send", "_sending_since", "_slot", "_tap",
        "_timer", "_waited_s", "data",
    )  # fmt: skip

    def __init__(
        self,
        parts: "Sidecar",
        send: Send,
        slot: Slot,
        answer: UpstreamAnswer,
        seen: Downward,
        kind: Kind,
        learn: Callable[[bytes], None] | None,
    ) -> None:
        """Relay to `send`; `learn` is told the reply's beginning once it is good."""
        self._parts = parts
        self._send = send
        self._slot = slot
        self._answer = answer
        self._seen = seen
        self._kind = kind
        self._learn = learn
        self._tap: UsageTap = UnreadableTap()
        self.data = b""
        self._waited_s = 0.0
        self._sending_since = math.inf
        self._timer: asyncio.TimerHandle

    async def run(self, form: Form) -> str:
        """Relay the answer, of which `data` has come; return how the attempt ended.

        Args:
            form: of the answer; a whole one is too large, too slow or too loud to be held.

        Raises:
            UpstreamError: it broke before anything was relayed.
            UnusableReplyError: it begins with a refusal; nothing was relayed.

        """
        if form is Form.EVENTS:
            self._seen.kept = of_events(self._seen.kept)
        unread: UsageTap = UnreadableTap()
        self._tap = self._parts.guard.run(
            "stream",
            lambda: usage_tap(
                self._kind,
                self._seen.encoding,
                is_stream=form is Form.EVENTS,
                is_series=form is Form.SERIES,
            ),
            unread,
        )
        self._feed(self.data)
        if form.is_stream:
            await self._hold_back()
        return await self._pass_on()

    async def _hold_back(self) -> None:
        """Hold the stream back up to its first content."""
        answer = self._answer
        until = asyncio.get_running_loop().time() + OPENING_S
        while self._still_opening() and len(self.data) < OPENING_BYTES:
            try:
                async with asyncio.timeout_at(until):
                    piece = await answer.chunk()
            except TimeoutError:
                break
            self._feed(piece)
            self.data += piece
        found = self._parts.guard.run(
            "stream", lambda: verdict_of_opening(self._tap, ended=answer.complete), None
        )
        if found is None:
            return
        if found.has_error:
            raise UnusableReplyError(found, self.data)
        raise ResetError("the upstream ended its stream without an end mark")

    def _still_opening(self) -> bool:
        tap = self._tap
        return not (self._answer.complete or tap.started or tap.finished or tap.error is not None)

    def _feed(self, data: bytes) -> None:
        try:
            self._tap.feed(data)
        except Exception as error:  # noqa: BLE001 - whatever it is, the bytes go through
            self._parts.guard.caught("stream", error)
            self._tap = UnreadableTap()

    async def _pass_on(self) -> str:
        """Relay as it comes, `data` first, which the tap has read already."""
        send, slot, answer = self._send, self._slot, self._answer
        data, self.data = self.data, b""
        headers = self._seen.kept + our_headers(slot.id, "dispatched", slot.queued_s)
        if self._learn is not None:
            self._learn(data)
        await send({"type": "http.response.start", "status": answer.status, "headers": headers})
        begun = False
        loop = asyncio.get_running_loop()
        self._look()
        try:
            while data:
                if not begun and self._tap.started:
                    begun = True
                    slot.first_token()
                    dispatched_at = slot.request.arrived_at + slot.queued_s
                    took_s = self._parts.gate.driver.now() - dispatched_at
                    self._parts.metrics.first_token.add(took_s, slot.upstream)
                if answer.complete:
                    break
                self._sending_since = sent_at = loop.time()
                await send({"type": "http.response.body", "body": data, "more_body": True})
                self._sending_since = math.inf
                self._waited_s += loop.time() - sent_at
                data = await self._next()
                self._feed(data)
        except UpstreamError:
            # The caller must see that it is cut: the connection is closed without an end mark.
            slot.fail(upstream_fault=True)
            return BROKEN_MIDWAY
        finally:
            self._timer.cancel()
        return await self._end(data)

    def _look(self) -> None:
        """Give the slot back once the reply has waited for its caller; it can be read on."""
        loop = asyncio.get_running_loop()
        waits_s = max(0.0, loop.time() - self._sending_since)
        if self._waited_s + waits_s >= CALLER_S:
            self._slot.cancel()
        else:
            self._timer = loop.call_later(CALLER_S, self._look)

    async def _next(self) -> bytes:
        """Return what comes next; b"" at the end, or soon after the stream's own end mark.

        Some leave the body open behind that: they hold no slot for it, and no caller who waits for
        the end.
        """
        # Of several pictures each has an end mark.
        if not self._tap.finished or self._tap.error is not None or self._kind in MEDIA:
            return await self._answer.chunk()
        self._settle()
        try:
            async with asyncio.timeout(OPENING_S):
                return await self._answer.chunk()
        except TimeoutError:
            return b""

    def _settle(self) -> None:
        if not self._slot.ended:
            usage = self._parts.guard.run("reply", self._tap.usage, UNKNOWN)
            self._parts.metrics.settled(self._slot.request, usage)
            self._slot.settle(usage)

    async def _end(self, data: bytes) -> str:
        """Relay the last bytes of a reply that the upstream has ended, and judge it."""
        how, tap, slot = COMPLETE, self._tap, self._slot
        whole = self._parts.guard.run("reply", lambda: tap.whole, otherwise=True)
        if tap.error is not None:
            meaning = self._meaning(tap.error)
            slot.end_midway(meaning)
            how = CALLER_ERROR if isinstance(meaning, Relay) else BROKEN_MIDWAY
        elif whole:
            self._settle()
        else:  # cut, as above, though the upstream calls it an end
            slot.fail(upstream_fault=True)
            await self._send({"type": "http.response.body", "body": data, "more_body": True})
            return BROKEN_MIDWAY
        await self._send({"type": "http.response.body", "body": data, "more_body": False})
        return how

    def _meaning(self, error: dict[str, Any]) -> Meaning:
        otherwise: Meaning = RELAY
        return self._parts.guard.run("refusal", lambda: meaning_of_error(error), otherwise)
