"""From a planned reply to its answer: waits for the provider, then writes or breaks as asked.

A provider model runs here by the event loop's clock in place of the virtual one.
"""

import asyncio
import math
from collections import OrderedDict
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from penstock.sim.mock.answers import ClientError, json_response, refusal_body, response
from penstock.sim.mock.call import MockCall, MockEndpoint, MockReply
from penstock.sim.mock.passage import MockStats, Passage
from penstock.sim.mock.script import BrokenOnPurposeError, Fault
from penstock.sim.providers.base import (
    Happening,
    Job,
    Occupancy,
    Provider,
    ProviderEvent,
    ProviderRefusal,
)

MOST = 10_000
"""Some tens of megabytes; a story that goes back further than that is none of a mock's."""


class KeptDocuments:
    """Documents by their id, each with the items of its input."""

    def __init__(self) -> None:
        """Keep nothing yet."""
        self._documents: OrderedDict[str, tuple[dict[str, Any], list[Any]]] = OrderedDict()

    def keep(self, document: dict[str, Any], items: list[Any]) -> None:
        """Keep a document under its id."""
        self._documents[document["id"]] = (document, items)
        self._documents.move_to_end(document["id"])
        if len(self._documents) > MOST:
            self._documents.popitem(last=False)

    def get(self, named: str) -> tuple[dict[str, Any], list[Any]] | None:
        """Return a document and its input; None if it is not kept, or not any more."""
        return self._documents.get(named)

    async def retrieve(self, request: Request) -> Response:
        """Answer with what is kept."""
        return json_response(self._at(request)[0])

    async def input_items(self, request: Request) -> Response:
        """Answer with the items of its input."""
        ends = {"first_id": None, "last_id": None, "has_more": False}
        return json_response({"object": "list", "data": self._at(request)[1], **ends})

    async def delete(self, request: Request) -> Response:
        """Keep it no longer."""
        document, _ = self._at(request)
        del self._documents[document["id"]]
        kind = "response" if "status" in document else "chat.completion.deleted"
        return json_response({"id": document["id"], "object": kind, "deleted": True})

    def _at(self, request: Request) -> tuple[dict[str, Any], list[Any]]:
        """Return the kept document that a path names, and the items of its input."""
        named = request.path_params["id"]
        found = self._documents.get(named)
        if found is None:
            what = "Response" if "/responses/" in request.url.path else "Chat completion"
            raise ClientError(404, f"{what} with id '{named}' not found.", param="id")
        return found


class LiveJob:
    """One job inside the live provider, as the handler that waits for it sees it.

    Attributes:
        end: how the job ended, or None while it runs.
        cached_tokens: of the prompt, from the first token on.

    """

    def __init__(self, live: "LiveProvider", job: Job) -> None:
        self.job = job
        self.end: ProviderEvent | None = None
        self.cached_tokens = 0
        self._live = live
        self._changed = asyncio.Event()

    async def change(self) -> None:
        """Wait until more tokens may be there or the job has ended."""
        await self._changed.wait()
        self._changed.clear()

    async def finished(self) -> None:
        """Wait until the job has ended."""
        while self.end is None:
            await self.change()

    def tokens_done(self) -> int:
        """Return how many tokens of the reply exist by now."""
        done = self._live.tokens_done(self.job.id)
        # Only now: looking may have been what brought the end, and what has ended has no count.
        if self.end is not None and self.end.what is Happening.FINISHED:
            return self.job.output_tokens
        return done

    def wake(self) -> None:
        """Make whoever waits look again."""
        self._changed.set()


class LiveProvider:
    """Drives one provider model in real time and wakes the handlers of its jobs.

    Events keep the model's exact times; a late timer makes the handlers late, not the model.
    """

    def __init__(self, provider: Provider, *, tick_s: float) -> None:
        self._provider = provider
        self._tick_s = tick_s
        self._loop = asyncio.get_running_loop()
        self._zero = self._loop.time()
        self._tickets: dict[int, LiveJob] = {}
        self._streams: dict[int, LiveJob] = {}
        self._last_id = 0
        self._timer: asyncio.Handle | None = None
        self._timer_at = math.inf
        self._ticker: asyncio.Handle | None = None
        self.peak_active = 0
        self.peak_queued = 0

    def now(self) -> float:
        """Return the seconds since the provider started."""
        return self._loop.time() - self._zero

    def submit(
        self, *, output_tokens: int, prompt_tokens: int, stream: bool
    ) -> LiveJob | ProviderRefusal:
        """Hand the provider a job; `stream` asks to be woken at every tick."""
        now = self._catch_up()
        self._last_id += 1
        job = Job(self._last_id, output_tokens, prompt_tokens)
        refusal = self._provider.submit(job, now=now)
        if refusal is not None:
            self._set_timer()
            return refusal
        ticket = self._tickets[job.id] = LiveJob(self, job)
        self._note_load()
        if stream:
            self._streams[job.id] = ticket
            if self._ticker is None:
                self._ticker = self._loop.call_later(self._tick_s, self._tick)
        self._set_timer()
        return ticket

    def release(self, ticket: LiveJob) -> None:
        """Free whatever the job still holds."""
        now = self._catch_up()
        self._streams.pop(ticket.job.id, None)
        self._tickets.pop(ticket.job.id, None)
        self._provider.cancel(ticket.job.id, now=now)
        self._set_timer()

    def tokens_done(self, job_id: int) -> int:
        """Return how many tokens the provider has emitted for the job."""
        return self._provider.tokens_done(job_id, now=self._catch_up())

    def headers(self) -> dict[str, str]:
        """Return the rate-limit headers that an answer carries now."""
        return self._provider.headers(now=self._catch_up())

    def load(self) -> Occupancy:
        """Return how many jobs are being served and how many wait inside."""
        self._catch_up()
        return self._provider.load()

    def _catch_up(self) -> float:
        """Let the provider come to the present, wake whom it concerns, and return the present."""
        now = self.now()
        for event in self._provider.advance(now=now):
            if event.what is Happening.FIRST_TOKEN:
                ticket = self._tickets.get(event.job_id)
            else:
                ticket = self._tickets.pop(event.job_id, None)
                if ticket is not None:
                    ticket.end = event
            if ticket is not None:
                ticket.cached_tokens = event.cached_tokens or 0
                ticket.wake()
        return now

    def _note_load(self) -> None:
        load = self._provider.load()
        self.peak_active = max(self.peak_active, load.active)
        self.peak_queued = max(self.peak_queued, load.queued)

    def _wake(self) -> None:
        self._timer = None
        self._catch_up()
        self._note_load()  # an engine takes up at its iteration's end what was submitted before
        self._set_timer()

    def _tick(self) -> None:
        self._ticker = None
        if self._streams:
            self._ticker = self._loop.call_later(self._tick_s, self._tick)
        for ticket in self._streams.values():
            ticket.wake()

    def _set_timer(self) -> None:
        at = self._provider.next_event_at()
        if self._timer is not None:
            if self._timer_at == at:
                return
            self._timer.cancel()
            self._timer = None
        if at < math.inf:
            # Kept here, because uvloop's handle of a time that has passed cannot tell it.
            self._timer_at = at
            self._timer = self._loop.call_at(self._zero + at, self._wake)


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
