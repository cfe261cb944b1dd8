"""From a call to its answer: how long it is, what it says, and how it goes out."""

import asyncio
import time
from dataclasses import replace
from itertools import pairwise
from typing import Any

import orjson

from penstock.sim.mock import words
from penstock.sim.mock.call import BodyError, Call, Endpoint, Reply
from penstock.sim.mock.errors import error_body, refusal_body
from penstock.sim.mock.faults import Fault, reset_connection
from penstock.sim.mock.http import Exchange
from penstock.sim.mock.live import LiveProvider, Ticket
from penstock.sim.mock.stats import MockStats
from penstock.sim.providers.base import Happening, Refusal

_HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


class BrokenOnPurposeError(Exception):
    """The connection was broken on purpose; nothing more can be sent."""


def plan_reply(call: Call, *, request_seed: int, asked_tokens: str | None, number: int) -> Reply:
    """Return the reply: as long as the header asks, else as drawn, at most `max_tokens`.

    Raises:
        BodyError: the header is not a whole number of 0 or more.

    """
    if call.reply_tokens is not None:
        tokens = call.reply_tokens
    elif asked_tokens is None:
        tokens = words.drawn_tokens(request_seed)
    elif asked_tokens.isdecimal():
        tokens = int(asked_tokens)
    else:
        raise BodyError(f"x-mock-output-tokens: {asked_tokens!r}: must be a whole number >= 0")
    cut = call.max_tokens is not None and tokens > call.max_tokens
    if cut and call.max_tokens is not None:
        tokens = call.max_tokens
    return Reply(number, int(time.time()), _pieces(call, request_seed, tokens), cut)


def _pieces(call: Call, request_seed: int, tokens: int) -> list[str]:
    text_words = words.reply_words(request_seed, tokens)
    schema = call.tool[1] if call.tool is not None else call.schema
    if schema is None or not tokens:
        return [w if n == 0 else f" {w}" for n, w in enumerate(text_words)]
    # JSON has its own length; it is cut into as many pieces as the reply shall have tokens.
    text = orjson.dumps(words.sample_of(schema, text_words)).decode()
    bounds = [len(text) * n // tokens for n in range(tokens + 1)]
    return [text[a:b] for a, b in pairwise(bounds)]


class Serving:
    """Answers one call: waits for the provider, then writes."""

    def __init__(
        self, exchange: Exchange, endpoint: Endpoint, live: LiveProvider, stats: MockStats
    ) -> None:
        self._exchange = exchange
        self._endpoint = endpoint
        self._live = live
        self._stats = stats

    async def serve(self, call: Call, reply: Reply, fault: Fault) -> None:
        """Answer the call, or break it as asked."""
        if await self._refused_on_demand(fault):
            return
        if fault.kind == "slow_first_token" and not await self._client_waits(fault.delay_s):
            self._stats.cancelled += 1
            return
        ticket = self._live.submit(
            output_tokens=reply.tokens * call.replies,
            prompt_tokens=call.prompt_tokens,
            stream=call.stream,
        )
        if isinstance(ticket, Refusal):
            await self._refuse(ticket)
            return
        self._exchange.watch(ticket.leave)
        try:
            await (self._stream if call.stream else self._whole)(call, reply, ticket, fault)
        except BrokenOnPurposeError:
            self._stats.faults += 1
            reset_connection(self._exchange.send)
        finally:
            unfinished = self._live.release(ticket)
            if ticket.gone and unfinished:
                self._stats.cancelled += 1
            await self._exchange.unwatch()

    async def _refused_on_demand(self, fault: Fault) -> bool:
        if fault.kind == "status":
            kinds = {429: "rate", 503: "overload", 529: "overload"}
            await self._refuse(Refusal(fault.status, kind=kinds.get(fault.status, "error")))
        elif fault.kind == "quota":
            await self._refuse(Refusal(429, kind="quota"))
        elif fault.kind == "not_json":
            self._stats.faults += 1
            await self._exchange.answer(200, _HTML, content_type="text/html")
        elif fault.kind == "reset_at_once":
            self._stats.faults += 1
            reset_connection(self._exchange.send)
        else:
            return False
        return True

    async def _client_waits(self, delay_s: float) -> bool:
        """Return True after the delay, False as soon as the client leaves."""
        left = asyncio.Event()
        self._exchange.watch(left.set)
        try:
            await asyncio.wait_for(left.wait(), delay_s)
        except TimeoutError:
            return True
        finally:
            await self._exchange.unwatch()
        return False

    async def _refuse(self, refusal: Refusal) -> None:
        self._stats.refuse(refusal.status)
        document = refusal_body(
            self._endpoint.vendor,
            refusal.status,
            refusal.kind,
            request_id=self._exchange.request_id,
        )
        await self._exchange.answer_json(refusal.status, document, refusal.headers)

    async def _whole(self, call: Call, reply: Reply, ticket: Ticket, fault: Fault) -> None:
        await ticket.finished()
        if ticket.gone:
            return
        await self._end_badly(ticket, fault)
        if ticket.gone:
            return
        if ticket.end is not None and ticket.end.what is not Happening.FINISHED:
            await self._refuse(Refusal(ticket.end.status))
            return
        reply = replace(reply, cached_tokens=ticket.cached_tokens)
        body = orjson.dumps(self._endpoint.whole(call, reply))
        if fault.kind in ("truncate", "bad_sse"):
            self._stats.faults += 1
            await self._exchange.answer(200, body[: len(body) // 2], self._live.headers())
            return
        await self._exchange.answer(200, body, self._live.headers())
        self._finish(call, reply)

    async def _stream(self, call: Call, reply: Reply, ticket: Ticket, fault: Fault) -> None:
        headers = {"cache-control": "no-cache"} | self._live.headers()
        sent = 0
        started = False
        while True:
            await ticket.change()
            if ticket.gone:
                return
            done = ticket.tokens_done()
            if done == 0 and ticket.end is None:
                continue
            if not started and ticket.end is not None and ticket.end.status >= 400:
                await self._refuse(Refusal(ticket.end.status))
                return
            if not started:
                started = True
                reply = replace(reply, cached_tokens=ticket.cached_tokens)
                await self._exchange.start(200, headers, content_type="text/event-stream")
                await self._exchange.write(b"".join(self._endpoint.opening(call, reply)))
            sent = await self._send_new(call, reply, sent, done)
            if await self._end_stream_badly(ticket, fault):
                return
            if ticket.end is not None:
                break
        await self._exchange.write(b"".join(self._endpoint.closing(call, reply)), last=True)
        self._finish(call, reply)

    async def _send_new(self, call: Call, reply: Reply, sent: int, done: int) -> int:
        """Send what has come since, an event per choice that gained something; return `done`."""
        per_choice = reply.tokens
        events: list[bytes] = []
        at = sent
        while at < done:
            choice, first = divmod(at, per_choice)
            until = min(per_choice, first + done - at)
            text = "".join(reply.pieces[first:until])
            events.append(self._endpoint.delta(call, reply, choice, text))
            at += until - first
        if events:
            await self._exchange.write(b"".join(events))
        return done

    async def _end_badly(self, ticket: Ticket, fault: Fault) -> None:
        """Break or stall as asked by the header or by the provider."""
        ended = ticket.end.what if ticket.end is not None else None
        reset = ended is Happening.BROKEN and ticket.end is not None and ticket.end.status == 0
        if fault.kind == "reset" or reset:
            raise BrokenOnPurposeError
        if fault.kind == "stall" or ended is Happening.STALLED:
            self._stats.faults += 1
            while not ticket.gone:
                await ticket.change()

    async def _end_stream_badly(self, ticket: Ticket, fault: Fault) -> bool:
        """Break, stall, garble or cut the stream as asked; True if it is over."""
        await self._end_badly(ticket, fault)
        if fault.kind == "bad_sse":
            self._stats.faults += 1
            await self._exchange.write(b"data: {this is no json\n\n", last=True)
            return True
        if fault.kind == "truncate":
            self._stats.faults += 1
            await self._exchange.write(b"", last=True)
            return True
        return False

    def _finish(self, call: Call, reply: Reply) -> None:
        self._stats.finished += 1
        self._stats.output_tokens += reply.tokens * call.replies


def client_error(
    vendor: str, exchange: Exchange, status: int, message: str, **more: Any
) -> dict[str, Any]:
    """Return the vendor's document for a mistake of the caller's."""
    return error_body(vendor, status, message, request_id=exchange.request_id, **more)
