"""How a good answer begins, and so how the rest of it passes: whole, or as it comes."""

from codecs import BOM_UTF8
from enum import StrEnum

from penstock.wire.encoding import READABLE, Inflater, codings_of
from penstock.wire.endpoint import Kind
from penstock.wire.refusal import BROKEN, Relay, meaning_of_error
from penstock.wire.series import SeriesSplitter
from penstock.wire.usage_tap import UsageTap
from penstock.wire.verdict import FAULT_STATUS, Verdict

OPENING_BYTES, OPENING_S = 1 << 16, 1.0
"""A stream is held back until its first content, so that a refusal at its beginning can be tried
again, but no further and, from its first byte, no longer: then keep-alives go through."""


class Form(StrEnum):
    """How an answer is framed."""

    WHOLE = "whole"
    EVENTS = "events"
    SERIES = "series"
    BYTES = "bytes"

    @property
    def is_stream(self) -> bool:
        """Whether it is made of pieces, each of which can be read by itself."""
        return self in (Form.EVENTS, Form.SERIES)


class Opening:
    """Told what has come until it says how it passes; names of media types prove nothing.

    What was asked to be a stream passes as it comes, and so does sound, unless its first byte
    shows a page or JSON. JSON behind JSON is a stream too.

    Args:
        kind: what was asked for.
        encoding: the answer's content encoding; empty if it has none.
        is_events: whether its type is that of an event stream.
        streams: whether a stream was asked for.

    Attributes:
        form: as far as is known.
        blank: whether nothing but blanks has come.

    """

    __slots__ = ("_inflater", "_kind", "_said", "_series", "_streams", "blank", "form")

    def __init__(self, kind: Kind, encoding: str, *, is_events: bool, streams: bool) -> None:
        """Begin with nothing."""
        self._kind = kind
        self._streams = is_events or streams
        self._inflater: Inflater | None = None
        self._series: SeriesSplitter | None = None
        self._said = Form.EVENTS if is_events else Form.WHOLE
        self.form = Form.WHOLE
        self.blank = True
        codings = codings_of(encoding) if encoding else ()
        if len(codings) == 1 and codings[0] in READABLE:
            self._inflater = Inflater(codings[0], OPENING_BYTES)
        elif codings:
            self.blank, self.form = False, self._said

    @property
    def passes(self) -> bool:
        """Whether it passes as it comes."""
        return self.form is not Form.WHOLE

    def take(self, chunk: bytes) -> None:
        """Take what came next."""
        if self.passes or not (self.blank or self._series):
            return
        if self._inflater is not None:
            chunk = b"".join(self._inflater.feed(chunk))
            if self._inflater.failed:
                self.blank, self._series, self.form = False, None, self._said
                return
        if self.blank:
            self._begin(chunk.removeprefix(BOM_UTF8).lstrip()[:1])
        if self._series is not None:
            for _ in self._series.feed(chunk):
                pass
            if self._series.goes_on:
                self.form = Form.SERIES

    def _begin(self, first: bytes) -> None:
        if not first:
            return
        self.blank = False
        if self._streams and first in b"{[\x1e":
            self._series = SeriesSplitter()
        elif self._streams and first != b"<":
            self.form = Form.EVENTS
        elif self._kind is Kind.SPEECH and first not in b"{<":
            self.form = Form.BYTES


def verdict_of_opening(stream: UsageTap, *, ended: bool) -> Verdict | None:
    """Return what speaks against a stream, up to its first content; None if nothing does.

    Args:
        stream: has read what has come.
        ended: whether that is all.

    """
    cut = ended and not stream.whole
    if stream.error is not None and (cut or not stream.started):
        meaning = meaning_of_error(stream.error)
        if isinstance(meaning, Relay):
            return None
        return Verdict(meaning, "begins its stream with an error", has_error=True)
    return Verdict(BROKEN, "ends its stream without an end mark", FAULT_STATUS) if cut else None
