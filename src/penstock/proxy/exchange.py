"""One scheduled request, from its wait for a slot to its last byte.

Nothing is sent twice once a byte of a reply has gone to the caller; until then an attempt that
fails goes back to the scheduler, which alone decides whether there is another.
"""

import asyncio
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from penstock.calls.facts import ids_in_reply
from penstock.core.events import LimitsSeen
from penstock.core.model import Request
from penstock.errors import Refused
from penstock.proxy.declined import CrossedError, UpstreamError
from penstock.proxy.failures import Ending, Failures, UnusableReplyError
from penstock.proxy.headers import (
    Downward,
    Header,
    Send,
    downward,
    our_headers,
    send_whole,
    text_headers,
    upward,
    without_encoding,
    without_trace,
)
from penstock.proxy.request_reader import Prepared
from penstock.proxy.streamed import COMPLETE, Streamed
from penstock.proxy.upstream.client import UpstreamClient
from penstock.proxy.upstream.http import UpstreamAnswer
from penstock.runtime.slot import Slot
from penstock.wire.encoding import can_read, is_misnamed, plain_unless_large
from penstock.wire.endpoint import Kind
from penstock.wire.limits import limits_of
from penstock.wire.opening import OPENING_BYTES, Opening
from penstock.wire.refusal import RELAY
from penstock.wire.usage_tap import KEPT_BYTES
from penstock.wire.verdict import (
    GOOD_STATUSES,
    Verdict,
    verdict_of_reply,
    verdict_of_status,
)

if TYPE_CHECKING:
    from penstock.proxy.sidecar import Sidecar

MOST_PLACED = 500
"""With more in hand nobody is told its place: to find one takes a look at all (0.5 ms)."""


class Exchange:
    """Relays one request.

    Attributes:
        outcome: how it ended, for the metrics.
        status: of the answer; 0 where there was none.
        landed: how its last attempt ended; empty before there was one.
        watch: is called when an attempt has ended.

    """

    __slots__ = (
        "_caller_headers", "_failures", "_flying", "_fresh", "_parts", "_prepared", "_send",
        "_slot", "_target", "landed", "outcome", "status", "watch",
    )  # fmt: skip

    def __init__(
        self, parts: "Sidecar", prepared: Prepared, headers: list[Header], query: bytes, send: Send
    ) -> None:
        """Prepare; `run` does it."""
        self._parts = parts
        self._prepared = prepared
        self._caller_headers = headers
        self._send = send
        self._target = prepared.endpoint.tail + ("?" + query.decode() if query else "")
        self._slot: Slot | None = None
        self._flying: UpstreamClient | None = None
        self._failures: Failures | None = None
        self._fresh = False
        self.outcome = "cancelled"
        self.status = 0
        self.landed = ""
        self.watch: Callable[[], None] | None = None

    @property
    def waiting(self) -> Request | None:
        """The request, unless it was not submitted yet or an attempt of it flies."""
        slot = self._slot
        return None if slot is None or self._flying is not None else slot.request

    async def run(self) -> None:
        """Wait for a slot, relay, and answer whatever comes of it."""
        try:
            self._slot = slot = self._parts.gate.prepare(self._prepared.spec)
            async with slot:
                while (ending := await self._attempt(slot)) is None:
                    pass
        except Refused as refused:
            ending = await self._failed().refuse(refused)
        except asyncio.CancelledError:
            self._landed("cancelled")
            raise
        finally:
            # What may point back here would keep the body until the collector comes.
            del self._failures, self._send, self.watch
        self.outcome, self.status = ending

    def told(self) -> str:
        """Return in a line what the request waits for, for a caller that wants to know."""
        slot = self._slot
        if slot is None:
            return "received"
        driver = self._parts.gate.driver
        busy = driver.in_hand > MOST_PLACED
        place = None if busy or self._flying is not None else driver.place(slot.request.id)
        if place is None:
            return f"id={slot.id} " + ("sent" if self._flying is not None else "waiting")
        text = f"id={slot.id} waiting cause={place.cause}"
        now = driver.now()
        wait_s = place.start_in_s(self._parts.lately.sent_per_s(slot.request, now), now=now)
        if place.position is not None:
            text += f" position={place.position}"
        return f"{text} estimate_s={wait_s:.1f}"

    async def _attempt(self, slot: Slot) -> Ending | None:
        """Send once, to the upstream of the scheduler's choice; None if it is to be sent again."""
        link = self._flying = self._parts.links[slot.upstream]
        body = self._prepared.body
        as_plain = body.packed and link.renames(self._prepared.facts.model)
        headers = upward(
            self._caller_headers, keep_credentials=link.wants_caller_key, as_plain=as_plain
        )
        if traced := slot.trace_headers(link.host, link.port):
            headers = [*without_trace(headers), *traced.items()]
        fresh, self._fresh = self._fresh, False
        answer: UpstreamAnswer | None = None
        try:
            answer = await link.send(
                "POST",
                self._target,
                headers,
                body.plain if as_plain else body.sent,
                fresh=fresh,
            )
            seen = downward(answer.headers)
            if seen.states_limits:
                self._learn_limits(link, slot.request, answer.headers)
            if answer.status >= 400:
                return await self._failed().judge(slot, link, answer, seen.encoding)
            return await self._relay(slot, link, answer, seen)
        except UnusableReplyError as found:
            assert answer is not None  # it is the answer that is not good
            answer.close()
            return await self._failed().not_good(slot, link, answer.headers, found)
        except UpstreamError as error:
            if answer is not None:
                answer.close()
            self._fresh = isinstance(error, CrossedError)
            return await self._failed().broke(slot, error)
        finally:
            if answer is not None:
                answer.close()

    # Good answers

    async def _relay(
        self,
        slot: Slot,
        link: UpstreamClient,
        answer: UpstreamAnswer,
        seen: Downward,
    ) -> Ending:
        """Relay an answer that is no error: whole, or as it comes.

        Raises:
            UpstreamError: it broke before anything was relayed.
            UnusableReplyError: it does not hold what was asked for; nothing was relayed.

        """
        if answer.status not in GOOD_STATUSES:
            bad = verdict_of_status(answer.status)
            assert bad is not None
            raise UnusableReplyError(bad, b"")
        learn, kind = self._learner(link), self._prepared.endpoint.kind
        streams = seen.is_stream or self._prepared.facts.streams
        opening = Opening(kind, seen.encoding, is_events=seen.is_stream, streams=streams)
        data, whole = await self._held_back(answer, opening, streams=streams)
        if whole:
            await self._send_whole(slot, answer.status, seen, data, learn)
            return self._relayed(link, COMPLETE, answer.status)
        streamed = Streamed(self._parts, self._send, slot, answer, seen, kind, learn)
        streamed.data = data
        del data  # a megabyte, for as long as the caller reads
        how = await streamed.run(opening.form)
        return self._relayed(link, how, answer.status)

    async def _held_back(
        self, answer: UpstreamAnswer, opening: Opening, *, streams: bool
    ) -> tuple[bytes, bool]:
        """Return what has come until the reply is whole, or is to pass as it comes."""
        pieces: list[bytes] = []
        size = 0
        while True:
            piece = await answer.chunk()
            pieces.append(piece)
            size += len(piece)
            opening.take(piece)
            if answer.complete:
                return b"".join(pieces), not opening.form.is_stream
            # A stream, too large, or a sign of life.
            lives = opening.blank and (size >= OPENING_BYTES if streams else size > 0)
            if opening.passes or lives or size > KEPT_BYTES:
                return b"".join(pieces), False

    async def _send_whole(
        self,
        slot: Slot,
        status: int,
        seen: Downward,
        body: bytes,
        learn: Callable[[bytes], None] | None,
    ) -> None:
        kind, encoding, parts = self._prepared.endpoint.kind, seen.encoding, self._parts
        verdict = None
        if encoding and is_misnamed(body, encoding):
            encoding, seen.kept = "", without_encoding(seen.kept)
        if not encoding or can_read(encoding):
            try:
                text = plain_unless_large(body, encoding) if encoding else body
                verdict = None if text is None else verdict_of_reply(kind, status, text)
            except Exception as error:  # noqa: BLE001 - whatever it is, the bytes go through
                parts.guard.caught("reply", error)
        if verdict is None:
            verdict = Verdict(RELAY, status=status)
        elif verdict.fault:
            raise UnusableReplyError(verdict, body)
        parts.metrics.settled(slot.request, verdict.usage)
        slot.settle(verdict.usage)
        if learn is not None:
            learn(body)
        headers = seen.kept + our_headers(slot.id, "dispatched", slot.queued_s)
        await send_whole(self._send, status, headers, body)

    def _relayed(self, link: UpstreamClient, how: str, status: int) -> Ending:
        self._landed(how)
        if how == COMPLETE:
            model = self._prepared.spec.model
            if self._failures is not None:
                self._failures.answered_elsewhere(model)
            link.served(model)
        return Ending(_OUTCOMES.get(how, how), status)

    def _learner(self, link: UpstreamClient) -> Callable[[bytes], None] | None:
        """Return who learns that this upstream holds what its reply names."""
        if self._prepared.endpoint.kind is not Kind.RESPONSES or len(self._parts.links) < 2:
            return None
        holders, now = self._parts.holders, self._parts.gate.driver.now
        guard = self._parts.guard
        return lambda text: guard.run(
            "ids", lambda: holders.note(ids_in_reply(text), link.name, now=now()), None
        )

    def _learn_limits(self, link: UpstreamClient, request: Request, headers: list[Header]) -> None:
        stated = text_headers(headers)
        seen = self._parts.guard.run(
            "limits",
            lambda: limits_of(link.name, stated, model=request.model, wall_now=time.time()),
            None,
        )
        if isinstance(seen, LimitsSeen):
            seen.account = request.account
            self._parts.gate.driver.tell(seen)

    # Small things

    def _failed(self) -> Failures:
        """Return who answers when something goes wrong; most requests never ask."""
        if self._failures is None:
            self._failures = Failures(self._parts, self._prepared, self._send, self._landed)
        return self._failures

    def _landed(self, outcome: str) -> None:
        """Count how the attempt that flies has ended; nothing if none does."""
        link, self._flying = self._flying, None
        if link is not None:
            self._parts.metrics.attempts.add(link.name, outcome)
            self.landed = outcome
            if self.watch is not None:
                self.watch()


_OUTCOMES = {COMPLETE: "completed", "broken_midway": "broken"}
