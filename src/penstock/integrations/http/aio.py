"""The async transport, for whichever library it is mixed into."""

import time
from collections.abc import AsyncIterator, Awaitable
from typing import Any

from penstock.errors import Refused
from penstock.integrations import default
from penstock.integrations.http import attempt
from penstock.integrations.http.plan import Plan, endpoint_for, plan_of
from penstock.integrations.http.refusing import refusal
from penstock.integrations.http.reply import ReplyFollower
from penstock.integrations.program import Penstock
from penstock.runtime.slot import Slot
from penstock.wire.refusal import Backoff, Meaning, Relay


class AsyncScheduling:
    """Waits for a slot, sends through the inner transport, holds the slot until the body's end.

    Attributes:
        http: `httpx2` or `httpx`; set by the class that mixes this in.
        stream_class: the library's base class of async bodies, likewise.

    """

    http: Any
    stream_class: Any

    def __init__(
        self,
        inner: Any = None,
        *,
        penstock: Penstock | None = None,
        upstream: str | None = None,
        **options: Any,
    ) -> None:
        """Wrap a transport.

        Args:
            inner: sends what is let through; the library's own if None.
            penstock: schedules; the program's if None.
            upstream: a name for the provider; its host if None.
            options: for the library's own transport (`verify`, `limits`, `proxy`, ...).

        """
        self._inner = self.http.AsyncHTTPTransport(**options) if inner is None else inner
        self._penstock = penstock or default.default()
        self._upstream = upstream

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request when the scheduler says so.

        Raises:
            ValueError: a hint that cannot be, such as an unknown class.

        """
        endpoint = endpoint_for(request)
        if endpoint is None:
            return await self._inner.handle_async_request(request)
        content = await request.aread()
        plan = plan_of(self._penstock, request, endpoint, content, self._upstream)
        began = time.monotonic()
        try:
            slot = await plan.outlet.gate.enter(plan.spec)
            try:
                return await self._send(request, plan, slot)
            except BaseException as error:
                if attempt.is_upstreams_fault(self.http, error):
                    slot.fail(upstream_fault=True)
                slot.leave(error)
                raise
        except Refused as refused:
            spent_s = time.monotonic() - began
            return refusal(self.http, request, plan, refused, spent_s=spent_s)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    async def _send(self, request: Any, plan: Plan, slot: Slot) -> Any:
        """Send until there is an answer for the caller."""
        while True:
            attempt.pass_trace_on(request, slot)
            try:
                response = await self._inner.handle_async_request(request)
            except self.http.TransportError as error:
                if attempt.may_try_again(self.http, error) and await _again(slot.failed()):
                    continue
                raise
            attempt.note_limits(plan, response)
            if attempt.wants_body(response):
                response = await self._whole(response)
                response, meaning = attempt.judge(self.http, plan, response, slot)
                if await self._try_again(plan, response, meaning, slot):
                    continue
            attempt.mark(response, slot)
            if response.is_closed:
                if not slot.ended:
                    ReplyFollower(slot, plan, response).whole(response.content)
                attempt.reopen(response)
            elif not slot.ended:
                follower = ReplyFollower(slot, plan, response)
                response.stream = self.stream_class(response.stream, follower)
            return response

    async def _whole(self, response: Any) -> Any:
        """Return an answer with its body at hand, and give its connection back."""
        try:
            body = b"".join([chunk async for chunk in response.stream])
        finally:
            await response.stream.aclose()
        return attempt.with_body(self.http, response, body)

    async def _try_again(self, plan: Plan, response: Any, meaning: Meaning, slot: Slot) -> bool:
        """Tell the scheduler what the answer means; say whether to send once more."""
        if isinstance(meaning, Relay):
            attempt.give_up(response, meaning)
            return False
        if isinstance(meaning, Backoff):
            again = await _again(slot.throttled(meaning.cause, meaning.retry_after_s))
        else:
            again = await _again(slot.failed())
        if not again:
            attempt.stands(plan, response, meaning)
        return again


async def _again(word: Awaitable[None]) -> bool:
    """Wait for the scheduler's word; False if the upstream's answer is to stand.

    Raises:
        Refused: for another reason than the upstream's answer.

    """
    try:
        await word
    except Refused as refused:
        if refused.reason != "upstream":
            raise
        return False
    return True


class AsyncFollowed:
    """An async body that is followed; mixed into the library's base class of such."""

    http: Any

    def __init__(self, inner: Any, follower: ReplyFollower) -> None:
        """Pass `inner` on, chunk by chunk."""
        self._inner = inner
        self._follower = follower

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the chunks as they come."""
        self._follower.awaited()
        try:
            async for chunk in self._inner:
                self._follower.chunk(chunk)
                yield chunk
                self._follower.awaited()
        except self.http.TransportError:
            self._follower.broke()
            raise
        self._follower.complete()

    async def aclose(self) -> None:
        """Close the inner body and end the slot, whatever happens."""
        try:
            await self._inner.aclose()
        finally:
            self._follower.closed()

    def __del__(self) -> None:
        """Give the slot back when a caller drops the response without closing it."""
        self._follower.closed()
