"""The transports, for whichever library they are mixed into: one flow, awaited or run at once."""

import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, TypeVar

from penstock.errors import Refused
from penstock.integrations import default
from penstock.integrations.http import attempt
from penstock.integrations.http.ahead import Ahead, SyncAhead
from penstock.integrations.http.network import watch
from penstock.integrations.http.plan import Plan, endpoint_for, plan_of, take_ours
from penstock.integrations.http.prefix import Prefix
from penstock.integrations.http.refusing import refusal
from penstock.integrations.http.reply import ReplyFollower
from penstock.integrations.program import Penstock
from penstock.runtime.slot import Slot, SyncSlot
from penstock.wire.refusal import Backoff, Meaning, Relay

_T = TypeVar("_T")


class _Scheduling(ABC):
    """Waits for a slot, sends through the inner transport, holds the slot until the body's end.

    Attributes:
        http: `httpx2` or `httpx`; set by the class that mixes this in.
        stream_class: the library's base class of bodies, likewise.
        inner_kind: the name of the library's own transport.
        close_name: the name of what closes a body.
        ahead: what reads one piece by piece.

    """

    http: Any
    stream_class: Any
    inner_kind: str
    close_name: str
    ahead: type[Any]

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
        self._inner = getattr(self.http, self.inner_kind)(**options) if inner is None else inner
        watch(self._inner)
        self._penstock = penstock or default.default()
        self._upstream = upstream

    # What is awaited or blocks: `Slot` and `SyncSlot` differ in just these.

    @abstractmethod
    async def _read(self, request: Any) -> bytes: ...

    @abstractmethod
    async def _enter(self, plan: Plan) -> Any: ...

    @abstractmethod
    async def _pass_on(self, request: Any) -> Any: ...

    @abstractmethod
    async def _done(self, step: Any) -> Any:
        """Return what a step of either kind comes to: one that blocks is over by now."""

    @abstractmethod
    def _follower(self, trace: attempt.ConnectionTrace) -> Callable[[str, Any], Any]:
        """Return what the library tells where the attempt goes."""

    async def _handle(self, request: Any) -> Any:
        endpoint = endpoint_for(request)
        if endpoint is None:
            take_ours(request.headers)
            return await self._pass_on(request)
        content = await self._read(request)
        plan = plan_of(self._penstock, request, endpoint, content, self._upstream)
        began = time.monotonic()
        try:
            slot = await self._enter(plan)
            plan.spec.body = None  # it is read, and the call's content is kept anyway
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

    async def _send(self, request: Any, plan: Plan, slot: Any) -> Any:
        """Send until there is an answer for the caller."""
        while True:
            attempt.pass_trace_on(request, slot)
            trace = attempt.ConnectionTrace(request)
            try:
                response = await self._pass_along(request, trace)
                attempt.note_limits(plan, response)
                attempt.from_memory(self.http, response)
                prefix = Prefix(response, plan)
                body = await self._body_of(request, response, prefix)
            except self.http.TransportError as error:
                if attempt.may_try_again(self.http, error) and not await self._refused(
                    slot, None, reused=trace.reused
                ):
                    continue
                raise
            if body is not None:
                response = attempt.with_body(self.http, response, body, prefix)
                response, meaning = attempt.judge(self.http, plan, response, slot, prefix)
                if await self._try_again(plan, response, meaning, slot):
                    continue
            attempt.mark(response, plan, slot)
            if response.is_closed:
                if not slot.ended:
                    ReplyFollower(slot, plan, response, prefix).whole()
                attempt.reopen(response)
            elif not slot.ended:
                follower = ReplyFollower(slot, plan, response, prefix)
                response.stream = self.stream_class(response.stream, follower)
            return response

    async def _body_of(self, request: Any, response: Any, prefix: Prefix) -> bytes | None:
        """Return an answer's body, of an error as much as says enough; close its stream.

        None if it goes on as it comes, or is too long to be judged: it can be read from its
        beginning then.

        Raises:
            TransportError: a reply has broken off.

        """
        stream = response.stream
        ahead = self.ahead(response)
        try:
            with prefix.patience(request):
                while (chunk := await self._done(ahead.next(prefix.left_s))) is not None:
                    if ahead.late or prefix.take(chunk):
                        return prefix.cut(response, ahead)
            return prefix.ended()
        except self.http.TransportError:
            if not prefix.is_error:
                raise
            return prefix.begun(response)
        finally:
            if response.stream is stream:
                await self._done(ahead.leave())
                await self._done(getattr(stream, self.close_name)())

    async def _try_again(self, plan: Plan, response: Any, meaning: Meaning, slot: Any) -> bool:
        """Report to the scheduler what the answer means; return whether to send once more."""
        if isinstance(meaning, Relay):
            attempt.give_up(response, meaning)
            return False
        refused = await self._refused(slot, meaning if isinstance(meaning, Backoff) else None)
        if refused is not None:
            attempt.stands(plan, response, meaning, refused)
        return refused is None

    async def _pass_along(self, request: Any, trace: attempt.ConnectionTrace) -> Any:
        """Send once, and follow on which connection."""
        request.extensions["trace"] = self._follower(trace)
        try:
            return await self._pass_on(request)
        finally:
            if trace.told is None:
                del request.extensions["trace"]
            else:
                request.extensions["trace"] = trace.told

    async def _refused(
        self, slot: Any, meaning: Meaning | None, *, reused: bool = False
    ) -> Refused | None:
        """Wait until the call may be sent again; return why not if the answer is to stand.

        Raises:
            Refused: for another reason than the upstream's answer.

        """
        try:
            if isinstance(meaning, Backoff):
                await self._done(slot.throttled(meaning.cause, meaning.retry_after_s))
            else:
                await self._done(slot.failed(reused=reused))
        except Refused as refused:
            if refused.reason != "upstream":
                raise
            return refused
        return None


class AsyncScheduling(_Scheduling):
    """The flow for coroutines."""

    inner_kind, close_name, ahead = "AsyncHTTPTransport", "aclose", Ahead

    async def handle_async_request(self, request: Any) -> Any:
        """Send one request when the scheduler says so.

        Raises:
            ValueError: a hint that cannot be, such as an unknown class.

        """
        return await self._handle(request)

    async def aclose(self) -> None:
        """Close the inner transport."""
        await self._inner.aclose()

    async def _read(self, request: Any) -> bytes:
        content: bytes = await request.aread()
        return content

    async def _enter(self, plan: Plan) -> Slot:
        return await plan.outlet.gate.enter(plan.spec)

    async def _pass_on(self, request: Any) -> Any:
        return await self._inner.handle_async_request(request)

    async def _done(self, step: Any) -> Any:
        return await step

    def _follower(self, trace: attempt.ConnectionTrace) -> Callable[[str, Any], Any]:
        async def follow(event: str, info: Any) -> None:
            trace.note(event)
            if trace.told is not None:
                await trace.told(event, info)

        return follow


class SyncScheduling(_Scheduling):
    """The flow for threads: the same coroutines, none of which waits for an event loop."""

    inner_kind, close_name, ahead = "HTTPTransport", "close", SyncAhead

    def handle_request(self, request: Any) -> Any:
        """Send one request when the scheduler says so.

        Raises:
            ValueError: a hint that cannot be, such as an unknown class.

        """
        return _run(self._handle(request))

    def close(self) -> None:
        """Close the inner transport."""
        self._inner.close()

    async def _read(self, request: Any) -> bytes:
        content: bytes = request.read()
        return content

    async def _enter(self, plan: Plan) -> SyncSlot:
        return plan.outlet.sync_gate.enter(plan.spec)

    async def _pass_on(self, request: Any) -> Any:
        return self._inner.handle_request(request)

    async def _done(self, step: Any) -> Any:
        return step

    def _follower(self, trace: attempt.ConnectionTrace) -> Callable[[str, Any], Any]:
        def follow(event: str, info: Any) -> None:
            trace.note(event)
            if trace.told is not None:
                trace.told(event, info)

        return follow


def _run(steps: Coroutine[Any, Any, _T]) -> _T:
    """Run a coroutine whose steps block and never wait for an event loop."""
    try:
        steps.send(None)
    except StopIteration as done:
        result: _T = done.value
        return result
    raise AssertionError("a blocking transport awaited an event loop")


class _Followed:
    """A body that is followed; mixed into the library's base class of such."""

    http: Any

    def __init__(self, inner: Any, follower: ReplyFollower) -> None:
        """Pass `inner` on, chunk by chunk."""
        self._inner = inner
        self._follower = follower

    def __del__(self) -> None:
        """Give the slot back when a caller drops the response without closing it."""
        self._follower.closed()


class AsyncFollowed(_Followed):
    """A followed body for coroutines."""

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


class SyncFollowed(_Followed):
    """A followed body for threads."""

    def __iter__(self) -> Iterator[bytes]:
        """Yield the chunks as they come."""
        self._follower.awaited()
        try:
            for chunk in self._inner:
                self._follower.chunk(chunk)
                yield chunk
                self._follower.awaited()
        except self.http.TransportError:
            self._follower.broke()
            raise
        self._follower.complete()

    def close(self) -> None:
        """Close the inner body and end the slot, whatever happens."""
        try:
            self._inner.close()
        finally:
            self._follower.closed()
