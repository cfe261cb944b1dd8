"""Follows a streamed reply while it is relayed: first token, usage, end, error."""

import re
from collections.abc import Mapping
from typing import Any

from penstock.wire import jsonio
from penstock.wire.content import complains, holds_content, is_content
from penstock.wire.endpoint import MEDIA, Kind
from penstock.wire.sse import SseSplitter
from penstock.wire.usage import UNKNOWN, Ends, Usage, UsageSource, usage_of_object

BYTES_PER_TOKEN = 4.0
"""For replies that were cut before they said their usage: English text has about 4.4 bytes a
token with today's vocabularies, code about 3.3, Chinese about 3 (ours, version 1)."""

MOST_OPEN = 4096
"""Choices that are followed: providers take 128 for each prompt. Of a stream of a million 35 MB
were kept."""

_ECHO = re.compile(rb'"response\.(?:created|queued|in_progress)"')
ECHO_BYTES = 256
"""Where an event's type stands; these three repeat the request, and may be as large."""


class StreamReader:
    """Reads along; give it every chunk that is relayed.

    Attributes:
        started: True once content (text, tool call, reasoning, a picture) has come.
        finished: True once the vendor's own end mark has come.
        error: the error that the stream carried, in the vendor's words; None without one.

    """

    __slots__ = ("_complaint", "_foreign", "_ignored", "_input", "_kind", "_open", "_output",
                 "_read", "_reported", "_said_why", "_splitter", "_text_bytes", "_told", "error",
                 "finished", "started")  # fmt: skip

    def __init__(self, kind: Kind) -> None:
        """Start at the beginning of a reply."""
        self._kind = kind
        self._read = _READERS.get(kind, _read_chat)
        self._splitter = SseSplitter()
        self._output: int | None = None
        self._input = UNKNOWN
        self._reported = False
        self._ignored = 0
        self._text_bytes = 0
        self.started = False
        self.finished = False
        self.error: dict[str, Any] | None = None
        self._open: set[object] = set()
        self._said_why = False
        self._foreign = False
        self._complaint: dict[str, Any] | None = None
        self._told = False  # anything: an end mark alone ends no reply

    @property
    def heard(self) -> bool:
        """True once an event or a comment has come whole."""
        return self._splitter.heard

    @property
    def whole(self) -> bool:
        """True if the stream may end here; one that stops earlier was cut.

        Some servers leave the end mark out, so the reason why each choice stopped is enough. Of
        a stream in another API's shape, or with an event too large to be read, nobody knows better.
        """
        said_why = self._said_why and not self._open
        return self.finished or said_why or self._foreign or self._splitter.lost

    def feed(self, chunk: bytes) -> None:
        """Read one chunk; broken events are passed over, as the client will judge them."""
        for data in self._splitter.feed(chunk):
            if isinstance(data, Ends):
                self._read_large(data)
                continue
            if data == b"[DONE]":
                self.finished = self._told
                if self._complaint is not None and not (self.started or self._said_why):
                    self.failed(self._complaint)
                continue
            self._told = True
            event = jsonio.lenient_object(data)
            if event is not None:
                if self._splitter.name:  # some leave to it what the vendors repeat
                    event.setdefault("type", self._splitter.name.decode("latin-1"))
                self.event(event)

    def event(self, event: dict[str, Any]) -> None:
        """Read one event."""
        self._read(self, event)

    def _read_large(self, event: Ends) -> None:
        """Read what the ends of an event tell that is too large to be kept: a picture, a file."""
        self._told = True
        if not _ECHO.search(event.head[:ECHO_BYTES]):
            self.started = True
        self._take(event.usage(self._kind), final=True)

    def usage(self) -> Usage:
        """Return the best that is known now: reported, else estimated, else unknown."""
        output = self._output
        source: UsageSource = "reported"
        if not self._reported:
            output, source = None, "unknown"
            if self.started:
                output, source = max(1, round(self._text_bytes / BYTES_PER_TOKEN)), "estimated"
        of = self._input
        counted, ignored = of.counted_input_tokens, self._ignored
        return Usage(output, of.prompt_tokens, source, of.cached_tokens, counted, ignored)

    def text(self, piece: object) -> None:
        """Count what was written; anything but text is passed over."""
        if piece and isinstance(piece, str):
            self.started = True
            self._text_bytes += (
                len(piece) if piece.isascii() else len(piece.encode(errors="replace"))
            )

    def piece(self, piece: object) -> None:
        """Note a piece that holds anything, in whatever field: it has been paid for."""
        if not self.started and is_content(piece):
            self.started = True

    def foreign(self, event: dict[str, Any]) -> None:
        """Note an event that is none of this API's: a text, or a complaint if nothing follows."""
        if self._foreign:
            return
        if holds_content(event):
            self.started = self._foreign = True
        elif complains(event):
            self._complaint = event

    def stopped(self, choice: object, reason: object) -> None:
        """Note a choice's piece, and whether it says why the choice stops here."""
        if isinstance(reason, str) and reason:
            self._said_why = True
            self._open.discard(choice)
        elif len(self._open) < MOST_OPEN:
            self._open.add(choice)

    def failed(self, error: object) -> None:
        """Keep the first error, as an object."""
        if self.error is None:
            self.error = error if isinstance(error, dict) else {"message": str(error)}

    def report(self, holder: Mapping[str, Any], *, final: bool) -> None:
        """Take in a usage; a count that is not final says nothing about the output."""
        self._take(usage_of_object(self._kind, holder), final=final)

    def _take(self, found: Usage, *, final: bool) -> None:
        self._ignored += found.ignored
        if found.prompt_tokens or (found.prompt_tokens == 0 and not self._input.prompt_tokens):
            self._input = found  # some gateways end with a 0, having begun with the count
        if final and found.output_tokens is not None:
            self._output = found.output_tokens
            self._reported = True


def _read_chat(reader: StreamReader, event: dict[str, Any]) -> None:
    """Chat completions and legacy completions."""
    error = jsonio.error_in(event)
    if error or "error" in (event.get("object"), event.get("type")):
        reader.failed(error or event)
    choices = event.get("choices")
    if isinstance(choices, list):
        for choice in choices:
            if isinstance(choice, dict):
                _read_choice(reader, choice)
                if error := jsonio.error_in_choice(choice):
                    reader.failed(error)
    elif not error:
        reader.foreign(event)
    if event.get("usage"):
        reader.report(event, final=True)


_TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


def _read_choice(reader: StreamReader, choice: dict[str, Any]) -> None:
    index = choice.get("index")
    reader.stopped(index if isinstance(index, int) else 0, choice.get("finish_reason"))
    delta = choice.get("delta") or choice.get("message")
    if isinstance(delta, dict):
        reader.piece(delta)
        for name in _TEXTS:
            if name in delta:
                reader.text(delta[name])
        calls = delta.get("tool_calls")
        for call in calls if isinstance(calls, list) else ():
            function = call.get("function") if isinstance(call, dict) else None
            if isinstance(function, dict):
                reader.text(function.get("name"))
                reader.text(function.get("arguments"))
    else:
        reader.text(choice.get("text"))


_RESPONSE_ENDS = frozenset(
    f"response.{how}" for how in ("completed", "incomplete", "failed", "cancelled")
)
_ANNOUNCEMENTS = (".created", ".queued", ".in_progress", ".added")


def _read_responses(reader: StreamReader, event: dict[str, Any]) -> None:
    kind = event.get("type")
    kind = kind if isinstance(kind, str) else ""
    if kind.endswith(".delta"):
        reader.text(event.get("delta"))
    elif kind in _RESPONSE_ENDS:
        reader.finished = True
        response = event.get("response")
        response = response if isinstance(response, dict) else {}
        if kind == "response.failed":
            reader.failed(response.get("error") or event.get("error") or {})
        reader.report(response, final=True)
    elif kind == "error":
        reader.failed(event.get("error") or event)
    elif not kind.startswith("response."):
        reader.foreign(event)
    elif not kind.endswith(_ANNOUNCEMENTS):  # a search, a picture, a text that comes whole
        reader.started = True


def _read_messages(reader: StreamReader, event: dict[str, Any]) -> None:
    kind = event.get("type")
    if kind == "message_start":
        message = event.get("message")
        if isinstance(message, dict):
            # Its output count is a first instalment (1 to 8), not the reply's.
            reader.report(message, final=False)
    elif kind == "content_block_delta":
        delta = event.get("delta")
        if isinstance(delta, dict):
            reader.piece(delta)
            for name in ("text", "partial_json", "thinking"):
                reader.text(delta.get(name))
    elif kind == "content_block_start":
        reader.piece(event.get("content_block"))
    elif kind == "message_delta":
        reader.report(event, final=True)
        delta = event.get("delta")
        reader.stopped(0, delta.get("stop_reason") if isinstance(delta, dict) else None)
    elif kind == "message_stop":
        reader.finished = True
    elif kind == "error":
        reader.failed(event.get("error") or event)
    else:
        reader.foreign(event)


def _read_media(reader: StreamReader, event: dict[str, Any]) -> None:
    """Pictures and sound: `TYPE.delta` and `TYPE.partial_image`, then `TYPE.done|completed`."""
    kind = event.get("type")
    kind = kind if isinstance(kind, str) else ""
    error = jsonio.error_in(event)
    if error or kind == "error":
        reader.failed(error or event)
    elif kind.endswith((".done", ".completed")):
        reader.started = reader.finished = True
        reader.report(event, final=True)
    elif kind == "transcript.text.delta":
        reader.text(event.get("delta"))
    elif kind:
        reader.started = True
    else:
        reader.foreign(event)


_READERS = {
    Kind.CHAT: _read_chat,
    Kind.COMPLETIONS: _read_chat,
    Kind.RESPONSES: _read_responses,
    Kind.MESSAGES: _read_messages,
    **dict.fromkeys(MEDIA, _read_media),
}
