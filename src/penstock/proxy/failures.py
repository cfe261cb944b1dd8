"""What comes of an attempt that brought no good answer: another one, or an answer to the caller."""

import asyncio
import re
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, NamedTuple

from penstock.core.events import RefusalCause
from penstock.errors import Refused
from penstock.proxy.declined import CrossedError, DialError, SilenceError, UpstreamError
from penstock.proxy.headers import (
    Header,
    Kept,
    Send,
    downward,
    our_headers,
    send_answer,
    send_whole,
    text_headers,
    with_bounded_wait,
    without_advice,
    without_encoding,
)
from penstock.proxy.request_reader import Prepared
from penstock.proxy.routing import serves
from penstock.proxy.upstream.client import UpstreamClient
from penstock.proxy.upstream.http import UpstreamAnswer
from penstock.runtime.slot import Slot
from penstock.wire.encoding import can_read, is_misnamed, plain
from penstock.wire.endpoint import Vendor
from penstock.wire.errors import error_answer, refusal_answer
from penstock.wire.refusal import (
    BROKEN,
    ERROR_BYTES,
    ERROR_S,
    RELAY,
    Backoff,
    Broken,
    Meaning,
    is_spent,
    meaning_of,
)
from penstock.wire.verdict import Verdict
from penstock.wire.words import words_of_refusal

if TYPE_CHECKING:
    from penstock.proxy.sidecar import Sidecar

DENIED_S = 10.0
"""How long an upstream is left alone that denies what another serves, before it is probed."""

_DENIALS = {
    401: "answers 401: is its key right?",
    403: "answers 403: may its key do this?",
    405: "answers 405: does its base_url lead to the API?",
    404: "answers 404 to what another upstream serves: are its base_url and its models right?",
}
"""What an upstream says of the key, the model or the path that the configuration gave it."""

_WORDLESS = "answers {} without a word to what another upstream serves: what stands in front of it?"
"""A provider says what is wrong with a request; a firewall or a web server has its own limits."""


class Ending(NamedTuple):
    """How a request ended: a word for the metrics, and the status that its caller got."""

    outcome: str
    status: int


class UnusableReplyError(Exception):
    """An answer with a good status holds no reply: an error, a login page, nothing.

    It is raised before anything of the answer was relayed.
    """

    def __init__(self, verdict: Verdict, body: bytes) -> None:
        """`verdict` says what is wrong; `body` is what came of the answer, an error's text."""
        super().__init__(verdict.fault)
        self.verdict = verdict
        self.body = body


class Failures:
    """The failed attempts of one request.

    Every method but `refuse` returns how the request ended, or None once the scheduler has
    dispatched it again.
    """

    __slots__ = ("_denied_by", "_kept", "_landed", "_parts", "_prepared", "_send")

    def __init__(
        self, parts: "Sidecar", prepared: Prepared, send: Send, landed: Callable[[str], None]
    ) -> None:
        """Answer to `send`; `landed` counts how each attempt ended."""
        self._parts = parts
        self._prepared = prepared
        self._send = send
        self._landed = landed
        self._kept: Kept | None = None
        self._denied_by: dict[UpstreamClient, str] = {}

    async def judge(
        self, slot: Slot, link: UpstreamClient, answer: UpstreamAnswer, encoding: str
    ) -> Ending | None:
        """Answer an upstream's error: to the caller, or to the scheduler."""
        body = b""
        with suppress(TimeoutError):
            async with asyncio.timeout(ERROR_S):
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
        kept = Kept(answer.status, answer.headers, body)
        half = encoding and not answer.complete and can_read(encoding)  # which nobody unpacks
        if half or is_misnamed(body, encoding) or (encoding and link.hidden(text) != text):
            kept = Kept(answer.status, without_encoding(kept.headers), text)
        answer.close()
        return await self._heed(slot, link, kept, meaning, text)

    async def broke(self, slot: Slot, error: UpstreamError) -> Ending | None:
        """Tell the scheduler that an attempt broke before its first byte.

        Raises:
            Refused: it may not be sent again.

        """
        kept = self._kept = _own_words(self._prepared.endpoint.vendor, error)
        self._landed(_broken_how(error))
        if isinstance(error, SilenceError):
            if not self._prepared.repeatable:
                slot.refuse(RefusalCause.SLOW_FIRST_TOKEN)
                return await self._give_up(slot, kept)
            await slot.throttled(RefusalCause.SLOW_FIRST_TOKEN)
            return None
        await slot.failed(
            reached=not isinstance(error, DialError), reused=isinstance(error, CrossedError)
        )
        return None

    async def not_good(
        self, slot: Slot, link: UpstreamClient, headers: list[Header], found: UnusableReplyError
    ) -> Ending | None:
        """Send again, or elsewhere, what was answered with a good status and nothing good."""
        verdict = found.verdict
        if verdict.has_error:
            return await self._heed(
                slot, link, Kept(verdict.status, headers, found.body), verdict.meaning, found.body
            )
        text = f"{verdict.told} Penstock's log names it."
        kept = self._kept = _kept_error(
            self._prepared.endpoint.vendor, verdict.status, "upstream_broken", text
        )
        if verdict.misdirected:
            of = f"{verdict.fault}: does its base_url lead to the API?"
            if await self._goes_elsewhere(slot, link, of, certain=True):
                return None
            link.complain(of)
            self._landed("denied")
            slot.fail(upstream_fault=True)
            return await self._give_up(slot, kept)
        link.complain(verdict.fault)
        self._landed("not_good")
        await slot.failed()
        return None

    async def refuse(self, refused: Refused) -> Ending:
        """Answer what the scheduler refuses: in the provider's words where it was the provider."""
        kept = self._kept
        if refused.reason == "upstream" and kept is not None:
            give_up: tuple[Kept, list[Header]] = (kept, [(b"x-should-retry", b"false")])
            bounded, wait = self._parts.guard.run(
                "refusal", lambda: with_bounded_wait(kept), give_up
            )
            ours = our_headers(refused.id, "refused:upstream", refused.queued_s)
            if refused.retry_after_s is None:
                bounded, wait = without_advice(bounded), wait or give_up[1]
            await self._relay_kept(bounded, ours + wait)
            return Ending("upstream_error", kept.status)
        prepared = self._prepared
        answer = refusal_answer(
            prepared.endpoint.vendor,
            refused,
            deadline_left_s=prepared.deadline_s - refused.queued_s,
        )
        await send_answer(self._send, answer)
        return Ending(refused.reason, answer.status)

    def answered_elsewhere(self, model: str) -> None:
        """Note that another upstream has served what these ones denied."""
        for link, of in self._denied_by.items():
            link.outdone(model)
            link.complain(of)

    async def _heed(
        self, slot: Slot, link: UpstreamClient, kept: Kept, meaning: Meaning, text: bytes
    ) -> Ending | None:
        """Do what a refusal or an error means."""
        headers = [(name, link.hidden(value)) for name, value in kept.headers]
        kept = self._kept = Kept(kept.status, headers, link.hidden(kept.body))
        if isinstance(meaning, Backoff):
            self._landed(f"refused_{meaning.cause.value}")
            if is_spent(meaning):
                self._kept = without_advice(kept)
                self._kept.headers.append((b"x-should-retry", b"false"))
            slot.refused_with(self._parts.guard.run("refusal", lambda: words_of_refusal(text), ""))
            await slot.throttled(meaning.cause, meaning.retry_after_s)
            return None
        if isinstance(meaning, Broken):
            self._landed("server_error")
            await slot.failed()
            return None
        if self._prepared.refers and _lacks(kept):
            # It names what another upstream made: no fault of this one, and soon asked there.
            self._landed("lacks_id")
            self._parts.holders.forget(self._prepared.refers)
            await slot.throttled(RefusalCause.REQUEST)
            return None
        if meaning.elsewhere:
            self._landed("refused_request")
            await slot.throttled(RefusalCause.REQUEST)
            return None
        denial = "" if link.wants_caller_key else self._denial(kept.status, text)
        if denial:
            certain = kept.status == 401 or link.outdone_at(self._prepared.spec.model)
            if await self._goes_elsewhere(slot, link, denial, certain=certain):
                return None
            if kept.status == 401:
                link.complain(_DENIALS[401])
        self._landed("caller_error")
        slot.fail(upstream_fault=False)
        ours = our_headers(slot.id, "dispatched", slot.queued_s)
        if meaning.for_good:
            kept = without_advice(kept)
            ours.append((b"x-should-retry", b"false"))
        await self._relay_kept(kept, ours)
        return Ending("caller_error", kept.status)

    def _denial(self, status: int, text: bytes) -> str:
        """Return what an answer says of our configuration; empty if it is about the request."""
        known = _DENIALS.get(status)
        if known is None and not self._parts.guard.run(
            "refusal", lambda: words_of_refusal(text), ""
        ):
            return _WORDLESS.format(status)
        return known or ""

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
        self._landed("denied")
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

    async def _give_up(self, slot: Slot, kept: Kept) -> Ending:
        """Answer in our words, and say that it is of no use, or no good, to send it again."""
        ours = our_headers(slot.id, "refused:upstream", slot.queued_s)
        await self._relay_kept(kept, [*ours, (b"x-should-retry", b"false")])
        return Ending("upstream_error", kept.status)

    async def _relay_kept(self, kept: Kept, ours: list[Header]) -> None:
        await send_whole(self._send, kept.status, downward(kept.headers).kept + ours, kept.body)


_NOT_FOUND = re.compile(rb"not[_ ]found|does not exist|no such", re.IGNORECASE)


def _broken_how(error: UpstreamError) -> str:
    if isinstance(error, DialError):
        return "dial_failed"
    return "silent" if isinstance(error, SilenceError) else "broken"


def _lacks(kept: Kept) -> bool:
    """Return whether an upstream does not have what a request names by its id."""
    if kept.status == 400:  # OpenAI: `previous_response_not_found`
        return _NOT_FOUND.search(kept.body) is not None
    return kept.status == 404


async def _quietly(answer: UpstreamAnswer) -> bytes:
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
