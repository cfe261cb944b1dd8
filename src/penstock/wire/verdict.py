"""Whether an answer with a good status is one: it is if it holds what its endpoint returns.

A status alone proves nothing. Sick upstreams and what stands in front of them answer 200 with an
error, a login page, half a reply or nothing, or redirect. One parse serves verdict and usage.
"""

from codecs import BOM_UTF8
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.wire import jsonio
from penstock.wire.content import holds_content
from penstock.wire.endpoint import NOT_ONLY_JSON, Kind
from penstock.wire.refusal import (
    BROKEN,
    RELAY,
    Meaning,
    meaning_of_error,
    status_of_error,
)
from penstock.wire.series import SeriesReader
from penstock.wire.stream import StreamReader
from penstock.wire.usage import UNKNOWN, Ends, Usage, usage_of_object
from penstock.wire.words import words_of, words_of_no_reply

EVENT_STREAM = "text/event-stream"
GOOD_STATUSES = frozenset(range(200, 300)) - {204, 205, 206}
"""What says itself that it holds nothing, or a part, is no reply; of the rest the body tells."""
FAULT_STATUS = 502
"""What a caller is told of an answer that is none, where the error in it names no status."""
REDIRECT = "answers with a redirect"
"""The fault of an answer that says itself that the API is elsewhere."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an answer with a status below 400 is.

    Attributes:
        meaning: `RELAY` if it is good, or holds an error that the caller made.
        fault: what is wrong with it, in words; empty if nothing is.
        status: what a caller is told: the answer's own, or that of the error it holds.
        usage: what it took.
        has_error: whether it holds an error in the provider's words.
        misdirected: whether it looks as if the base URL led to something else than the API.
        said: what it says in its own words, where it is neither a reply nor an error.

    """

    meaning: Meaning
    fault: str = ""
    status: int = 200
    usage: Usage = field(default_factory=lambda: UNKNOWN)
    has_error: bool = False
    misdirected: bool = False
    said: str = ""

    @property
    def told(self) -> str:
        """What is wrong, for the caller."""
        return f"The upstream {self.fault}." + (f" It says: {self.said}" if self.said else "")

    @property
    def good(self) -> bool:
        """Whether it holds what its endpoint returns."""
        return not self.fault


def is_event_stream(content_type: str) -> bool:
    """Return whether server-sent events follow; names of media types know no case."""
    return content_type[: len(EVENT_STREAM)].lower() == EVENT_STREAM


def verdict_of_status(status: int) -> Verdict | None:
    """Return the verdict on a status below 400 that no endpoint answers with; None for others."""
    if status in GOOD_STATUSES:
        return None
    redirect = 300 <= status < 400
    fault = REDIRECT if redirect else f"answers with status {status}"
    return Verdict(BROKEN, fault, FAULT_STATUS, misdirected=redirect)


def verdict_of_reply(kind: Kind, status: int, body: bytes) -> Verdict:
    """Return the verdict on a whole reply.

    Args:
        kind: what was asked for.
        status: HTTP status, below 400.
        body: without its content encoding.

    """
    bad = verdict_of_status(status)
    if bad is not None:
        return bad
    if jsonio.has_too_many_values(body):  # like one that is too long, it is not judged
        ends = Ends()
        ends.feed(body)
        return Verdict(RELAY, "", status, ends.usage(kind))
    reply = jsonio.lenient_object(body)
    if reply is None:
        what, is_page = _shape(body)
        if what == _OTHER and (kind in NOT_ONLY_JSON or _is_list(kind, body)):
            return Verdict(RELAY, "", status)
        found = None if is_page else _verdict_of_pieces(kind, status, body)
        if found is not None:
            return found
        said = words_of_no_reply(body) if what == _OTHER else ""
        fault = f"answers with {what}"
        return Verdict(BROKEN, fault, FAULT_STATUS, misdirected=is_page, said=said)
    return verdict_of_object(kind, status, reply)


def verdict_of_object(kind: Kind, status: int, reply: Mapping[str, Any]) -> Verdict:
    """Return the verdict on a parsed reply with a good status."""
    error = jsonio.error_of(reply)
    if error is not None:
        told = status_of_error(error) or FAULT_STATUS
        fault = f"answers with an error under status {status}"
        return Verdict(meaning_of_error(error), fault, told, has_error=True)
    holds = _HOLDS.get(kind)
    if holds is not None and not holds(reply) and not holds_content(reply):
        fault = "answers without what its endpoint returns"
        return Verdict(BROKEN, fault, FAULT_STATUS, said=words_of(reply))
    return Verdict(RELAY, "", status, usage_of_object(kind, reply))


def _verdict_of_pieces(kind: Kind, status: int, body: bytes) -> Verdict | None:
    """Return the verdict on a body that came whole and is a stream; None if it is none.

    Some stream to whoever asked for a whole reply: it is paid for, and its caller's to read.
    """
    text = body.lstrip(_BLANKS)
    reader = SeriesReader(kind) if text[:1] in (b"{", b"[") else StreamReader(kind)
    reader.feed(text + b"\n\n")
    if reader.error is not None and not reader.started:
        error = reader.error
        told = status_of_error(error) or FAULT_STATUS
        fault = f"answers with an error under status {status}"
        return Verdict(meaning_of_error(error), fault, told, has_error=True)
    good = reader.started and reader.whole
    return Verdict(RELAY, "", status, reader.usage()) if good else None


_BLANKS = b" \t\r\n\x1e"
"""Between texts of JSON: RFC 7464 begins each with a record separator."""
_OTHER = "no JSON object"
_SAMPLE_BYTES = 4096
"""Sound has zeros before that (one sample in 128 begins like an object); no text has any."""


def _shape(body: bytes) -> tuple[str, bool]:
    """Return what a body is that is no JSON object, and whether it is a web page."""
    text = body.removeprefix(BOM_UTF8).lstrip()
    if text.startswith(b"<"):
        return "a web page", True
    if not text:  # as plain text a line end says that nobody spoke
        return (_OTHER if body == b"\n" else "an empty body"), False
    is_text = b"\0" not in text[:_SAMPLE_BYTES]
    return ("half a reply" if is_text and text.startswith(b"{") else _OTHER), False


_LISTED = {Kind.RERANK: dict, Kind.EMBEDDINGS: list}
"""What TEI's own paths answer with: a list of ranks, or of vectors."""


def _is_list(kind: Kind, body: bytes) -> bool:
    """Return whether a body is a list of what its endpoint returns elsewhere."""
    of = _LISTED.get(kind)
    try:
        found = jsonio.loads(body) if of is not None else None
    except ValueError:
        return False
    return of is not None and isinstance(found, list) and bool(found) and isinstance(found[0], of)


def _holds_choices(field: str) -> Callable[[Mapping[str, Any]], bool]:
    def holds(reply: Mapping[str, Any]) -> bool:
        choices = reply.get("choices")
        if choices == []:  # blocked by a filter (Gemini), and paid for
            return isinstance(reply.get("usage"), dict)
        first = choices[0] if isinstance(choices, list) else None
        if not isinstance(first, dict):
            return False
        held = first.get(field)
        if isinstance(held, dict) and "content" in held:
            said = held["content"] is not None or any(held[name] for name in held if name != "role")
            held = held if said else None
        # With a reason why it stopped it may hold nothing: all was spent on thinking, and is paid.
        return held is not None or bool(first.get("finish_reason"))

    return holds


def _holds_vectors(reply: Mapping[str, Any]) -> bool:
    data = reply.get("data")
    if data == []:  # nothing was asked for
        return isinstance(reply.get("usage"), dict)
    first = data[0] if isinstance(data, list) and data else None
    return isinstance(first, dict) and bool(first.get("embedding"))


def _holds_response(reply: Mapping[str, Any]) -> bool:
    # One in the background has no output yet.
    return isinstance(reply.get("output"), list) or reply.get("status") in ("queued", "in_progress")


def _holds_content(reply: Mapping[str, Any]) -> bool:
    return isinstance(reply.get("content"), list)  # may be empty: nothing was left to say


def _holds_list(*fields: str) -> Callable[[Mapping[str, Any]], bool]:
    def holds(reply: Mapping[str, Any]) -> bool:
        return any(isinstance(reply.get(field), list) for field in fields)

    return holds


def _holds_text(reply: Mapping[str, Any]) -> bool:
    return isinstance(reply.get("text"), str)  # may be empty: nobody spoke


_HOLDS: dict[Kind, Callable[[Mapping[str, Any]], bool]] = {
    Kind.CHAT: _holds_choices("message"),
    Kind.COMPLETIONS: _holds_choices("text"),
    Kind.EMBEDDINGS: _holds_vectors,
    Kind.RESPONSES: _holds_response,
    Kind.MESSAGES: _holds_content,
    Kind.IMAGES: _holds_list("data"),
    Kind.IMAGE_EDITS: _holds_list("data"),
    Kind.TRANSCRIPTIONS: _holds_text,
    Kind.TRANSLATIONS: _holds_text,
    Kind.MODERATIONS: _holds_list("results"),
    Kind.RERANK: _holds_list("results", "data"),
}
