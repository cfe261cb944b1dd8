"""From a planned reply to its answer: waits for the provider, then writes or breaks as asked."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.responses import Response, StreamingResponse

from penstock.sim.mock.answers import json_response, refusal_body, response
from penstock.sim.mock.call import MockCall, MockEndpoint, MockReply
from penstock.sim.mock.faults import BrokenOnPurposeError, Fault
from penstock.sim.mock.kept import KeptDocuments
from penstock.sim.mock.live import LiveJob, LiveProvider
from penstock.sim.mock.passage import Passage
from penstock.sim.mock.stats import MockStats
from penstock.sim.providers.base import Happening, ProviderRefusal

_HTML = b"<html><body><h1>502 Bad Gateway</h1></body></html>"


@dataclass
class Serving:
    """Answers one call. Its task is cancelled when the client leaves."""

    _passage: Passage
    _endpoint: MockEndpoint
    _live: LiveProvider
    _stats: MockStats
    _kept: KeptDocuments

    async def answer(self, call: MockCall, reply: MockReply, fault: Fault) -> Response:
        """Return the answer to the call, or break it as asked."""
        refused = self._refused_on_demand(fault)
        if refused is not None:
            return refused
        if fault.kind == "slow_first_token":
            await asyncio.sleep(fault.delay_s)
        ticket = self._live.submit(
            output_tokens=(reply.lead_tokens + reply.tokens) * call.replies,
            prompt_tokens=call.prompt_tokens,
            stream=call.stream,
        )
        if isinstance(ticket, ProviderRefusal):
            return self._refusal(ticket)
        self._passage.at_end(lambda: self._live.release(ticket))
        return await (self._stream if call.stream else self._whole)(call, reply, ticket, fault)

    def _refused_on_demand(self, fault: Fault) -> Response | None:
        if fault.kind == "status":
            kinds = {429: "rate", 503: "overload", 529: "overload"}
            return self._refusal(
                ProviderRefusal(fault.status, kind=kinds.get(fault.status, "error"))
            )
        if fault.kind == "quota":
            return self._refusal(ProviderRefusal(429, kind="quota"))
        if fault.kind == "not_json":
            self._stats.faults += 1
            return response(_HTML, content_type="text/html")
        if fault.kind == "reset_at_once":
            raise BrokenOnPurposeError
        return None

    def _refusal(self, refusal: ProviderRefusal) -> Response:
        self._stats.refuse(refusal.status)
        document = refusal_body(
            self._endpoint.vendor,
            refusal.status,
            refusal.kind,
            request_id=self._passage.request_id,
        )
        return json_response(document, refusal.headers, status=refusal.status)

    async def _whole(
        self, call: MockCall, reply: MockReply, ticket: LiveJob, fault: Fault
    ) -> Response:
        await ticket.finished()
        await self._break(ticket, fault)
        if ticket.end is not None and ticket.end.what is not Happening.FINISHED:
            return self._refusal(ProviderRefusal(ticket.end.status))
        document = self._endpoint.whole(call, replace(reply, cached_tokens=ticket.cached_tokens))
        if isinstance(document, bytes):
            self._finish(call, reply, None)
            return response(document, self._live.headers(), content_type="audio/wav")
        body = orjson.dumps(document)
        if fault.kind in ("truncate", "bad_sse"):
            self._stats.faults += 1
            return response(body[: len(body) // 2], self._live.headers())
        self._finish(call, reply, document)
        return response(body, self._live.headers())

    async def _stream(
        self, call: MockCall, reply: MockReply, ticket: LiveJob, fault: Fault
    ) -> Response:
        while ticket.tokens_done() == 0 and ticket.end is None:
            await ticket.change()
        if ticket.end is not None and ticket.end.status >= 400:
            return self._refusal(ProviderRefusal(ticket.end.status))
        reply = replace(reply, cached_tokens=ticket.cached_tokens)
        headers = {"content-type": "text/event-stream", "cache-control": "no-cache"}
        events = self._events(call, reply, ticket, fault)
        return StreamingResponse(events, headers=headers | self._live.headers())

    async def _events(
        self, call: MockCall, reply: MockReply, ticket: LiveJob, fault: Fault
    ) -> AsyncIterator[bytes]:
        yield b"".join(self._endpoint.opening(call, reply))
        sent = 0
        while True:
            done = max(0, ticket.tokens_done() - reply.lead_tokens)
            new = self._deltas(call, reply, sent, done)
            if new:
                yield new
            sent = done
            await self._break(ticket, fault)
            if fault.kind in ("bad_sse", "truncate"):
                self._stats.faults += 1
                if fault.kind == "bad_sse":
                    yield b"data: {this is no json\n\n"
                return
            if ticket.end is not None:
                break
            await ticket.change()
        self._finish(call, reply, None)
        self._passage.leave()
        yield b"".join(self._endpoint.closing(call, reply))

    def _deltas(self, call: MockCall, reply: MockReply, sent: int, done: int) -> bytes:
        """Return what has come since, an event per token: however late it is looked at."""
        events: list[bytes] = []
        for at in range(sent, done):
            choice, place = divmod(at, reply.tokens)
            piece = reply.pieces[place : place + 1]
            events.append(self._endpoint.delta(call, reply, choice, piece))
        return b"".join(events)

    async def _break(self, ticket: LiveJob, fault: Fault) -> None:
        """Break or stall as asked by the header or by the provider."""
        ended = ticket.end.what if ticket.end is not None else None
        reset = ended is Happening.BROKEN and ticket.end is not None and ticket.end.status == 0
        if fault.kind == "reset" or reset:
            raise BrokenOnPurposeError
        if fault.kind == "stall" or ended is Happening.STALLED:
            self._stats.faults += 1
            await asyncio.Event().wait()  # until the client leaves

    def _finish(self, call: MockCall, reply: MockReply, document: dict[str, Any] | None) -> None:
        self._stats.finished += 1
        self._stats.output_tokens += (reply.lead_tokens + reply.tokens) * call.replies
        items = self._endpoint.kept_input(call)
        if items is not None:
            whole = document or self._endpoint.whole(call, reply)
            assert isinstance(whole, dict)  # no sound is kept
            self._kept.keep(whole, items)
