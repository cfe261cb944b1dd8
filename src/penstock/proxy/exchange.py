"""One scheduled request, from the gate to its last byte.

Nothing is sent twice once a byte of a reply has gone to the caller; until then an attempt that
fails goes back to the scheduler, which alone decides whether there is another.
"""

import asyncio
import re
import time
from collections.abc import Callable

from penstock.calls.references import ids_in_reply
from penstock.core.events import LimitsSeen, RefusalCause
from penstock.core.model import Request
from penstock.errors import Refused
from penstock.proxy.headers import Header, upward, without_trace
from penstock.proxy.relaying import (
    BROKEN_MIDWAY,
    CALLER_ERROR,
    COMPLETE,
    NotGoodError,
    Parts,
    Relaying,
)
from penstock.proxy.reply import (
    Kept,
    Send,
    our_headers,
    read_headers,
    send_answer,
    send_whole,
    text_headers,
    with_bounded_wait,
    without_advice,
)
from penstock.proxy.request_reader import Prepared
from penstock.proxy.routing import serves
from penstock.proxy.upstream.client import UpstreamClient
from penstock.proxy.upstream.errors import DialError, SilenceError, UpstreamError
from penstock.proxy.upstream.http import Answer
from penstock.runtime.gate import Admission
from penstock.runtime.slot import Slot
from penstock.wire.encoding import plain
from penstock.wire.endpoint import Kind, Vendor
from penstock.wire.errors import error_answer, refusal_answer
from penstock.wire.limits import limits_of
from penstock.wire.refusal import BROKEN, RELAY, Backoff, Broken, Meaning, is_spent, meaning_of
from penstock.wire.words import words_of_refusal

ERROR_BYTES = 1 << 18
"""How much of an upstream's error is read before it is judged."""

MOST_PLACED = 500
"""With more in hand nobody is told its place: to find one takes a look at all (0.5 ms)."""

DENIED_S = 10.0
"""How long an upstream is left alone that denies what another serves, before it is probed."""

_DENIALS = {
    401: "answers 401: is its key right?",
    403: "answers 403: may its key do this?",
    404: "answers 404 to what another upstream serves: are its base_url and its models right?",
}
"""What an upstream says of the key, the model or the path that the configuration gave it."""


class Exchange:
    """Relays one request."""

    __slots__ = (
        "_admission", "_caller_headers",
        "_denied_by", "_flying", "_kept", "_parts", "_prepared", "_relaying",
        "_send", "_target", "outcome", "status",
    )  # fmt: skip

    def __init__(
        self, parts: Parts, prepared: Prepared, headers: list[Header], query: bytes, send: Send
    ) -> None:
        """Prepare; `run` does it."""
        self._parts = parts
        self._prepared = prepared
        self._caller_headers = headers
        self._send = send
        self._relaying = Relaying(parts, prepared, send)
        self._target = prepared.endpoint.tail + ("?" + query.decode() if query else "")
        self._admission: Admission | None = None
        self._kept: Kept | None = None
        self._flying: UpstreamClient | None = None
        self._denied_by: dict[UpstreamClient, str] = {}
        self.outcome = "cancelled"
        self.status = 0

    async def run(self) -> None:
        """Wait for a slot, relay, and answer whatever comes of it."""
        try:
            self._admission = admission = self._parts.gate.admit(self._prepared.spec)
            async with admission as slot:
                while not await self._attempt(slot):
                    pass
        except Refused as refused:
            await self._refuse(refused)
        except asyncio.CancelledError:
            self._count("cancelled")
            raise

    def told(self) -> str:
        """Return in a line what the request waits for, for a caller that wants to know."""
        slot = None if self._admission is None else self._admission.waits_for
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

    async def _attempt(self, slot: Slot) -> bool:
        """Send once; False if the scheduler has dispatched it again."""
        link = self._flying = self._parts.links[slot.upstream]
        sent_at = self._parts.gate.driver.now()
        body = self._prepared.body
        plain_for = body.packed and link.renames(self._prepared.model)
        headers = upward(
            self._caller_headers, keep_credentials=link.wants_caller_key, as_plain=plain_for
        )
        if traced := slot.trace_headers(link.host, link.port):
            headers = [*without_trace(headers), *traced.items()]
        answer: Answer | None = None
        try:
            answer = await link.send(
                "POST", self._target, headers, body.plain if plain_for else body.sent
            )
            seen = read_headers(answer.headers)
            if seen.states_limits:
                self._learn_limits(link, slot.request, answer.headers)
            if answer.status >= 400:
                return await self._judge(slot, link, answer, seen.encoding)
            self._relaying.learn = self._learner(link)
            how = await self._relaying.run(slot, answer, seen, sent_at)
            self._relayed(link, how, answer.status)
            return True
        except NotGoodError as found:
            assert answer is not None  # it is the answer that is not good
            answer.close()
            return await self._not_good(slot, link, answer.headers, found)
        except UpstreamError as error:
            if answer is not None:
                answer.close()
            return await self._broke(slot, link, error)
        finally:
            if answer is not None:
                answer.close()

    def _learner(self, link: UpstreamClient) -> Callable[[bytes], None] | None:
        """Return who learns that this upstream holds what its reply names."""
        if self._prepared.endpoint.kind is not Kind.RESPONSES or len(self._parts.links) < 2:
            return None
        holders, now = self._parts.holders, self._parts.gate.driver.now
        guard = self._parts.guard
        return lambda text: guard.run(
            "ids", lambda: holders.note(ids_in_reply(text), link.name, now=now()), None
        )

    def _relayed(self, link: UpstreamClient, how: str, status: int) -> None:
        self._count(how)
        self._ended(_OUTCOMES[how], status)
        if how == COMPLETE:
            model = self._prepared.spec.model
            for other, of in self._denied_by.items():
                other.outdone(model)
                other.complain(of)
            link.served(model)

    # What went wrong

    async def _judge(self, slot: Slot, link: UpstreamClient, answer: Answer, encoding: str) -> bool:
        """Answer an upstream's error: to the caller, or to the scheduler."""
        body = b""
        while len(body) < ERROR_BYTES and (data := await _quietly(answer)):
            body += data
        text = plain(body, encoding) if encoding else body
        headers = text_headers(answer.headers)
        otherwise: Meaning = BROKEN if answer.status >= 500 else RELAY
        meaning = self._parts.guard.run(
            "refusal",
            lambda: meaning_of(answer.status, headers, text, wall_now=time.time()),
            otherwise,
        )
        answer.close()
        kept = Kept(answer.status, answer.headers, body)
        return await self._heed(slot, link, kept, meaning, text)

    async def _heed(
        self, slot: Slot, link: UpstreamClient, kept: Kept, meaning: Meaning, text: bytes
    ) -> bool:
        """Do what a refusal or an error means; False if the request was dispatched again."""
        self._kept = kept
        if isinstance(meaning, Backoff):
            self._count(f"refused_{meaning.cause.value}")
            if is_spent(meaning):
                self._kept = without_advice(kept)
                self._kept.headers.append((b"x-should-retry", b"false"))
            slot.refused_with(self._parts.guard.run("refusal", lambda: words_of_refusal(text), ""))
            await slot.throttled(meaning.cause, meaning.retry_after_s)
            return False
        if isinstance(meaning, Broken):
            self._count("server_error")
            await slot.failed()
            return False
        if self._prepared.refers and _lacks(kept):
            # It names what another upstream made: no fault of this one, and soon asked there.
            self._count("lacks_id")
            self._parts.holders.forget(self._prepared.refers)
            await slot.throttled(RefusalCause.REQUEST)
            return False
        if meaning.elsewhere:
            self._count("refused_request")
            await slot.throttled(RefusalCause.REQUEST)
            return False
        if kept.status in _DENIALS and not link.wants_caller_key:
            certain = kept.status == 401 or link.outdone_at(self._prepared.spec.model)
            if await self._goes_elsewhere(slot, link, _DENIALS[kept.status], certain=certain):
                return False
            if kept.status == 401:
                link.complain(_DENIALS[401])
        self._count("caller_error")
        slot.fail(upstream_fault=False)
        ours = our_headers(slot.id, "dispatched", slot.queued_s)
        if meaning.for_good:
            kept = without_advice(kept)
            ours.append((b"x-should-retry", b"false"))
        await self._relay_kept(kept, ours)
        self._ended("caller_error", kept.status)
        return True

    async def _goes_elsewhere(
        self, slot: Slot, link: UpstreamClient, of: str, *, certain: bool
    ) -> bool:
        """Return whether another upstream may serve what this one denied; return when it is sent.

        What is not certain may be the caller's own mistake, which all deny: it is asked once of
        each, and speaks against none of them.
        """
        again = link in self._denied_by
        self._denied_by[link] = of
        link.denying = link.denying or certain
        if (again and not certain) or not self._has_rivals(link):
            return False
        self._count("denied")
        if certain:
            link.complain(of)
            await slot.throttled(RefusalCause.DENIED, DENIED_S)
        else:
            await slot.failed(upstream_fault=False)
        return True

    def _has_rivals(self, link: UpstreamClient) -> bool:
        """Return whether another upstream may serve the request, as far as is known."""
        model = self._prepared.spec.model
        return any(
            other is not link
            and other not in self._denied_by
            and not other.denying
            and serves(other.serves, model)
            for other in self._parts.links.values()
        )

    async def _broke(self, slot: Slot, link: UpstreamClient, error: UpstreamError) -> bool:
        """Tell the scheduler that an attempt broke before its first byte; return if it may go on.

        Raises:
            Refused: it may not.

        """
        kept = self._kept = _own_words(self._prepared.endpoint.vendor, error)
        self._count(_broken_how(error))
        if isinstance(error, SilenceError):
            if not self._prepared.repeatable:
                slot.refuse(RefusalCause.SLOW_FIRST_TOKEN)
                return await self._give_up(slot, kept)
            await slot.throttled(RefusalCause.SLOW_FIRST_TOKEN)
            return False
        await slot.failed(reached=not isinstance(error, DialError))
        return False

    async def _not_good(
        self, slot: Slot, link: UpstreamClient, headers: list[Header], found: NotGoodError
    ) -> bool:
        """Send again, or elsewhere, what was answered with a good status and nothing good."""
        verdict = found.verdict
        if verdict.has_error:
            return await self._heed(
                slot, link, Kept(verdict.status, headers, found.body), verdict.meaning, found.body
            )
        text = f"The upstream {verdict.fault}. Penstock's log names it."
        kept = self._kept = _kept_error(
            self._prepared.endpoint.vendor, verdict.status, "upstream_broken", text
        )
        if verdict.misdirected:
            of = f"{verdict.fault}: does its base_url lead to the API?"
            if await self._goes_elsewhere(slot, link, of, certain=True):
                return False
            link.complain(of)
            self._count("denied")
            slot.fail(upstream_fault=True)
            return await self._give_up(slot, kept)
        link.complain(verdict.fault)
        self._count("not_good")
        await slot.failed()
        return False

    async def _give_up(self, slot: Slot, kept: Kept) -> bool:
        """Answer in our words, and say that it is of no use, or no good, to send it again."""
        ours = our_headers(slot.id, "refused:upstream", slot.queued_s)
        await self._relay_kept(kept, [*ours, (b"x-should-retry", b"false")])
        self._ended("upstream_error", kept.status)
        return True

    async def _refuse(self, refused: Refused) -> None:
        kept = self._kept
        if refused.reason == "upstream" and kept is not None:
            give_up: tuple[Kept, list[Header]] = (kept, [(b"x-should-retry", b"false")])
            bounded, wait = self._parts.guard.run(
                "refusal", lambda: with_bounded_wait(kept), give_up
            )
            ours = our_headers(refused.id, "refused:upstream", refused.queued_s)
            await self._relay_kept(bounded, ours + wait)
            self._ended("upstream_error", kept.status)
            return
        prepared = self._prepared
        answer = refusal_answer(
            prepared.endpoint.vendor,
            refused,
            deadline_left_s=prepared.deadline_s - refused.queued_s,
        )
        await send_answer(self._send, answer)
        self._ended(refused.reason, answer.status)

    async def _relay_kept(self, kept: Kept, ours: list[Header]) -> None:
        await send_whole(self._send, kept.status, read_headers(kept.headers).kept + ours, kept.body)

    # Small things

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

    def _count(self, outcome: str) -> None:
        """Count how the attempt that flies has ended; nothing if none does."""
        link, self._flying = self._flying, None
        if link is not None:
            self._parts.metrics.attempts.add(link.name, outcome)

    def _ended(self, outcome: str, status: int) -> None:
        self.outcome = outcome
        self.status = status


_NOT_FOUND = re.compile(rb"not[_ ]found|does not exist|no such", re.IGNORECASE)
_OUTCOMES = {COMPLETE: "completed", BROKEN_MIDWAY: "broken", CALLER_ERROR: "caller_error"}


def _broken_how(error: UpstreamError) -> str:
    if isinstance(error, DialError):
        return "dial_failed"
    return "silent" if isinstance(error, SilenceError) else "broken"


def _lacks(kept: Kept) -> bool:
    """Return whether an upstream does not have what a request names by its id."""
    if kept.status == 400:  # OpenAI: `previous_response_not_found`
        return _NOT_FOUND.search(kept.body) is not None
    return kept.status == 404


async def _quietly(answer: Answer) -> bytes:
    """Return the next bytes of an error's body; a break in it ends it: the status says enough."""
    try:
        return await answer.chunk()
    except UpstreamError:
        return b""


def _own_words(vendor: Vendor, error: UpstreamError) -> Kept:
    """Return what the caller is told when no upstream's own answer is left to relay."""
    if isinstance(error, SilenceError):
        status, code = 504, "upstream_timeout"
        text = (
            "The upstream did not answer in time. It may be working on the request still: penstock "
            "sends it again only with an Idempotency-Key or x-penstock-safe-to-repeat: true."
        )
    elif isinstance(error, DialError):
        text = "The upstream cannot be reached. Penstock's log says why."
        status, code = 502, "upstream_unreachable"
    else:
        status, code, text = 502, "upstream_broken", "The upstream's answer broke off."
    return _kept_error(vendor, status, code, text)


def _kept_error(vendor: Vendor, status: int, code: str, text: str) -> Kept:
    answer = error_answer(vendor, status, code, text)
    return Kept(status, [(k.encode(), v.encode()) for k, v in answer.headers.items()], answer.body)
