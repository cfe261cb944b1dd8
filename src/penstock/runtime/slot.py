"""A place in flight: what a request holds between the scheduler's yes and its end."""

import math
import random
from collections.abc import Mapping
from contextvars import ContextVar
from typing import NoReturn, Self
from weakref import ref

from penstock.calls.factory import RequestFactory
from penstock.calls.spec import RequestSpec
from penstock.calls.tracing import Tracer
from penstock.core.events import (
    Cancelled,
    Completed,
    Dispatch,
    Event,
    Failed,
    FirstToken,
    RefusalCause,
    Throttled,
    Why,
)
from penstock.core.model import Request, bucket_of
from penstock.errors import ProtocolError, Refused
from penstock.runtime.driver import Driver
from penstock.runtime.uninterrupted import UNINTERRUPTED
from penstock.runtime.waiters import AsyncWaiter, ThreadWaiter, Waiter, Word
from penstock.wire.refusal import Backoff, Meaning, Relay
from penstock.wire.usage import UNKNOWN, Usage, checked

_NO_HEADERS: Mapping[str, str] = {}
_OF_PROVIDER = ("quota", "rate", "upstream")
"""Reasons of refusals that stand on what the provider said."""
_HELD: ContextVar[tuple["ref[Hold]", ...]] = ContextVar("penstock_held", default=())
"""The slots that the running task or thread holds: what it waits for is nested in the innermost.

A context variable, so tasks and `asyncio.to_thread` inherit it from whoever started them.
"""


class Hold:
    """What async and sync slots share. A slot ends exactly once, by whatever comes first.

    One that nobody holds any more has ended, too: no leaver of whatever kind keeps the place.

    Attributes:
        driver: of the scheduler that it is a place of.
        request: as the scheduler sees it.
        upstream: where the request is to be sent now.
        why: what the last decision stood on.
        attempts: how often it was dispatched.
        ended: True once the slot has been given back.

    """

    _submitted = False

    def __init__(
        self, driver: Driver, factory: RequestFactory, spec: RequestSpec, chance: random.Random
    ) -> None:
        """Make the request; it is not submitted yet."""
        self.driver = driver
        self._epoch = driver.epoch
        self._factory = factory
        self._chance = chance
        spec.idle = driver.idle()
        self.request: Request
        self.request, self._learn = factory.request(spec, now=driver.now())
        if factory.tracer is not None:
            self._begin_trace(factory.tracer, spec)
        self.upstream = ""
        self.attempts = 0
        self.ended = False
        self._why: Why | None = None
        self._first_token = False

    def __del__(self) -> None:
        """Give the slot back that was dropped, as by an interrupt on the way out of its `with`."""
        if self._submitted and not self.ended:
            self.cancel()

    @property
    def id(self) -> str:
        """The public id, as callers, logs and `penstock explain` have it: run and number."""
        return f"{self._factory.run}-{self.request.id}"

    @property
    def why(self) -> Why:
        """What the last decision stood on.

        Raises:
            ProtocolError: there was no decision yet.

        """
        if self._why is None:
            raise ProtocolError(f"request {self.id} was not decided on yet")
        return self._why

    @property
    def queued_s(self) -> float:
        """How long it waited for its last dispatch, in seconds since submission."""
        return self._why.waited_s if self._why is not None else 0.0

    def trace_headers(self, host: str = "", port: int | None = None) -> Mapping[str, str]:
        """Return the headers by which the provider's spans join the caller's trace.

        `traceparent`, and `tracestate` where there is one; none if nobody traces. Ask anew for
        each attempt.

        Args:
            host: where the attempt goes, for the attempt's span; empty if unknown.
            port: likewise; None if unknown.

        """
        tracer = self._factory.tracer
        if tracer is None:
            return _NO_HEADERS
        try:
            return tracer.headers(self.request.id, host, port)
        except Exception as error:  # noqa: BLE001 - logged; the call goes on without a trace
            self.driver.guard.hook_failed("tracer", "the tracer failed to name its headers", error)
            return _NO_HEADERS

    def first_token(self) -> None:
        """Report that the first token of the reply came; further calls do nothing."""
        if not self._first_token and not self.ended:
            self._first_token = True
            self.driver.tell(FirstToken(self.request.id))

    def settle(self, usage: Usage | None = None) -> None:
        """Report that the reply is complete and give the slot back at once.

        Raises:
            ProtocolError: the slot has ended already.

        """
        if self.ended:
            raise ProtocolError(
                f"slot {self.id} has ended already: settle it once, inside its `with`"
            )
        self._settle(checked(usage, self.driver.guard.hook_failed))

    def fail(self, *, upstream_fault: bool = False) -> None:
        """Report that the attempt broke for good and give the slot back; harmless when ended.

        Args:
            upstream_fault: True if it speaks against the upstream's health.

        """
        self._end(Failed(self.request.id, retryable=False, upstream_fault=upstream_fault))

    def refuse(self, cause: RefusalCause | str, retry_after_s: float | None = None) -> None:
        """Report that the provider refused, give the slot back and send nothing again.

        For a reply that had begun, or a provider that may be working on the request still;
        harmless when ended.
        """
        jitter = self._chance.random()
        cause = RefusalCause(cause)
        self._end(Throttled(self.request.id, cause, retry_after_s, jitter, retryable=False))

    def refused_with(self, words: str) -> None:
        """Note in which words the provider refused, for later refusals of this account.

        Args:
            words: of `wire.words.words_of_refusal`: short, and without keys.

        """
        self.driver.last_words.put(self.request.account, words)

    def end_midway(self, meaning: Meaning) -> None:
        """Give the slot back for an error within a stream: an overload is one even then."""
        if isinstance(meaning, Backoff):
            self.refuse(meaning.cause, meaning.retry_after_s)
        else:
            self.fail(upstream_fault=not isinstance(meaning, Relay))

    def cancel(self) -> None:
        """Report that the caller went away and give the slot back; harmless when ended."""
        self._end(Cancelled(self.request.id))

    def leave(self, error: BaseException | None) -> None:
        """End the slot as the body of its `with` ended, unless it has ended already."""
        if self.ended:
            return
        if error is None:
            self._settle(UNKNOWN)
        elif isinstance(error, Exception):
            self.fail()
        else:  # CancelledError, GeneratorExit, KeyboardInterrupt: the caller went away
            self.cancel()

    def _settle(self, usage: Usage) -> None:
        reported = usage.source == "reported"
        self._end(
            Completed(
                self.request.id,
                usage.output_tokens,
                usage.prompt_tokens,
                reported,
                usage.cached_tokens,
                usage.counted_input_tokens,
                usage.ignored,
            )
        )
        if self._learn is not None and reported and usage.output_tokens is not None:
            try:
                self._learn(usage.output_tokens)
            except Exception as error:  # noqa: BLE001 - logged; the reply is the caller's already
                self.driver.guard.hook_failed("predictor", "the predictor failed to learn", error)

    def _end(self, event: Event) -> None:
        if self.ended:
            return
        with UNINTERRUPTED:
            self.ended = True
            if self._epoch == self.driver.epoch:  # else the parent's, in a forked child
                self.driver.tell(event)

    def _check_new(self) -> None:
        if self._submitted:
            raise ProtocolError(f"slot {self.id} is entered once: ask the gate for another")

    def _submit(self, waiter: Waiter) -> None:
        self._submitted = True
        self.request.inside = _outer_of(self.driver)
        self.driver.submit(self.request, waiter)

    def _leave_queue(self, waiter: Waiter) -> None:
        """End a request whose caller leaves as it waits, perhaps at the very moment of the word."""
        if waiter.refused:  # it has ended, and ends once
            self.ended = True
        else:
            self.cancel()

    def _begin_trace(self, tracer: Tracer, spec: RequestSpec) -> None:
        try:
            tracer.begin(self.id, self.request, spec)
        except Exception as error:  # noqa: BLE001 - logged; the call goes on without a trace
            self.driver.guard.hook_failed("tracer", "the tracer failed to begin a trace", error)

    def _throttled(self, cause: RefusalCause | str, retry_after_s: float | None) -> None:
        self._check_held("throttled")
        jitter = self._chance.random()
        self.driver.tell(Throttled(self.request.id, RefusalCause(cause), retry_after_s, jitter))

    def _broken(
        self, *, retryable: bool, upstream_fault: bool, reached: bool, reused: bool
    ) -> bool:
        """Report that the attempt broke; return whether there may be another."""
        if not retryable:
            self.fail(upstream_fault=upstream_fault)
            return False
        self._check_held("failed")
        jitter = self._chance.random()
        id_ = self.request.id
        self.driver.tell(
            Failed(
                id_,
                retryable=True,
                upstream_fault=upstream_fault,
                jitter=jitter,
                reached=reached,
                reused=reused,
            )
        )
        return True

    def _check_held(self, what: str) -> None:
        if self.ended:
            raise ProtocolError(f"slot {self.id} has ended: it cannot have {what} afterwards")

    def _take(self, word: Word) -> None:
        """Hold the slot, or raise what the refusal says."""
        self._why = word.why
        if isinstance(word, Dispatch):
            self.upstream = word.upstream
            self.attempts += 1
            if self.attempts == 1:
                _note_held(self)
            self.driver.measure_stalls()
            self._first_token = False
            return
        self.ended = True
        raise Refused(
            self.id,
            word.reason,
            rung=word.why.rung,
            predicted_cost_tokens=self.request.cost_tokens,
            severity=word.why.severity,
            retry_after_s=_finite(word.retry_after_s),
            queued_s=word.why.waited_s,
            provider_said=self.driver.last_words.get(self.request.account, "")
            if word.reason in _OF_PROVIDER
            else "",
        )


def _outer_of(driver: Driver) -> int | None:
    """Return the id of the request whose slot of that driver is held here; None if none is."""
    for each in reversed(_HELD.get()):
        slot = each()
        if slot is not None and slot.driver is driver and not slot.ended:
            return slot.request.id
    return None


def _note_held(slot: Hold) -> None:
    """Note that the running task or thread holds the slot; ended ones are forgotten."""
    live = tuple(each for each in _HELD.get() if (one := each()) is not None and not one.ended)
    _HELD.set((*live, ref(slot)))


def _finite(wait_s: float | None) -> float | None:
    return wait_s if wait_s is not None and math.isfinite(wait_s) else None


class Slot(Hold):
    """A slot held by a coroutine."""

    _waiter: AsyncWaiter

    async def throttled(
        self, cause: RefusalCause | str, retry_after_s: float | None = None
    ) -> None:
        """Report that the provider refused the attempt, and wait until it may be sent again.

        Args:
            cause: "rate", "quota", "overload", "slow_first_token", or "request" if this request can
                never pass, others can.
            retry_after_s: the provider's wish.

        Raises:
            Refused: it will not be sent again; the provider's answer stands.
            ProtocolError: the slot has ended already.

        """
        self._throttled(cause, retry_after_s)
        await self._next_word()

    async def failed(
        self,
        *,
        retryable: bool = True,
        upstream_fault: bool = True,
        reached: bool = True,
        reused: bool = False,
    ) -> None:
        """Report that the attempt broke; if it may be retried, wait until it may be sent again.

        With `retryable=False` the slot ends and the call returns at once.

        Args:
            retryable: False if a byte of the reply has been used already.
            upstream_fault: True if it speaks against the upstream's health.
            reached: False if nothing got to the provider, so that another may be tried at once.
            reused: True if a connection that had served others before ended without a byte of an
                answer.

        Raises:
            Refused: it will not be sent again; the provider's answer stands.
            ProtocolError: the slot has ended already.

        """
        if self._broken(
            retryable=retryable, upstream_fault=upstream_fault, reached=reached, reused=reused
        ):
            await self._next_word()

    async def __aenter__(self) -> Self:
        """Submit the request and wait until it may be sent.

        Raises:
            Refused: the scheduler says no.
            ProtocolError: it has been entered before.

        """
        self._check_new()
        self._waiter = AsyncWaiter()
        await self._next_word(submit=True)
        return self

    async def __aexit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Give the slot back, by what happened; there is no await here to be cancelled at."""
        self.leave(error)

    async def _next_word(self, *, submit: bool = False) -> None:
        try:
            if submit:
                self._submit(self._waiter)
            self._take(await self._waiter.word())
        except BaseException:
            self._leave_queue(self._waiter)
            raise


class SyncSlot(Hold):
    """A slot held by a thread."""

    _waiter: ThreadWaiter

    def throttled(self, cause: RefusalCause | str, retry_after_s: float | None = None) -> None:
        """Report that the provider refused the attempt, and block until it may be sent again.

        Raises:
            Refused: it will not be sent again; the provider's answer stands.
            ProtocolError: the slot has ended already.

        """
        self._throttled(cause, retry_after_s)
        self._next_word()

    def failed(
        self,
        *,
        retryable: bool = True,
        upstream_fault: bool = True,
        reached: bool = True,
        reused: bool = False,
    ) -> None:
        """Report that the attempt broke; if it may be retried, block until it may be sent again.

        Raises:
            Refused: it will not be sent again; the provider's answer stands.
            ProtocolError: the slot has ended already.

        """
        if self._broken(
            retryable=retryable, upstream_fault=upstream_fault, reached=reached, reused=reused
        ):
            self._next_word()

    def __enter__(self) -> Self:
        """Submit the request and block until it may be sent.

        Raises:
            Refused: the scheduler says no.
            ProtocolError: it has been entered before.

        """
        self._check_new()
        self._waiter = ThreadWaiter()
        self._next_word(submit=True)
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        """Give the slot back, by what happened."""
        self.leave(error)

    def _next_word(self, *, submit: bool = False) -> None:
        try:
            if submit:
                self._submit(self._waiter)
            if not self._waiter.told and self.driver.waited_on_here():
                self._refuse_to_block()
            self._take(self._waiter.word())
        except BaseException:
            self._leave_queue(self._waiter)
            raise

    def _refuse_to_block(self) -> NoReturn:
        """Do not wait on the thread of the very event loop, or decision, that is to make room."""
        raise Refused(
            self.id,
            "blocked_loop",
            rung=bucket_of(self.request.cost_tokens),
            predicted_cost_tokens=self.request.cost_tokens,
            severity=0.0,
            retry_after_s=None,
            advice="a synchronous call must wait here, and would block the event loop whose own "
            "calls hold what it waits for: use penstock.async_client() or penstock.gate() in "
            "coroutines, or await asyncio.to_thread(...); in an observer or a log handler of "
            "penstock's, make calls in another thread",
        )
