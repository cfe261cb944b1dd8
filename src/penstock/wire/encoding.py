"""Undoes content encodings in bounded steps: a kilobyte of zeros can claim to be a gigabyte.

gzip and deflate are always read; zstd and br where Python or an extra brings them.
"""

import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib import import_module
from typing import Any

PLAIN_MAX_BYTES = 16 << 20
"""Beyond this nothing more is read of what a provider or a program has packed."""

_STEP_BYTES = 1 << 18
_TAKEN_BYTES = 1 << 14
"""Given to a decoder at once: each member or frame that ends copies what is behind it."""
MEMBERS_MOST = 10_000
"""Members or frames of one body. Those that hold nothing take 9 bytes each, and a body of 32 MB is
3.7 million of them; a writer that packs each event of a stream by itself has some thousand."""
_CODINGS_MOST = 3
"""A body may be packed several times; a fourth is nobody's wish."""
_ZSTD_WINDOW_LOG = 23
"""8 MB, the most that RFC 9659 allows: a frame may ask for a window of gigabytes."""


def is_plain(body: bytes) -> bool:
    """Return whether a body is a JSON object as it is, whatever coding is stated.

    Some clients state a charset there, or what somebody on the way has undone; servers that look
    at no coding take it.
    """
    return body.lstrip()[:1] == b"{"


class EncodingError(ValueError):
    """A body that cannot be unpacked here; the text says why.

    Attributes:
        unknown: True if nobody here knows the coding.
        too_large: True if the plain bytes are more than allowed.

    """

    def __init__(self, text: str, *, unknown: bool = False, too_large: bool = False) -> None:
        """Say what is wrong."""
        super().__init__(text)
        self.unknown = unknown
        self.too_large = too_large


class _Zlib:
    """gzip, in as many members as come, and deflate with or without zlib's frame.

    As every decoder: `step` takes data and returns at most `_STEP_BYTES` plain bytes, `hungry` is
    True if nothing more comes without more data, `members` counts those after the first.
    """

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._begun = self._over = False
        self._unzip = zlib.decompressobj(wbits)
        self._rest = b""
        self.hungry = True
        self.members = 0

    def step(self, data: bytes) -> bytes:
        if self._over:
            return b""
        data = self._rest + data if self._rest else data
        further = self._unzip.eof
        if further:
            self.members += 1
            self._unzip = zlib.decompressobj(self._wbits)
        try:
            piece = self._unzip.decompress(data, _STEP_BYTES)
        except zlib.error:
            if further:  # no member, but what some writers pad a file with
                self._rest, self.hungry, self._over = b"", True, True
                return b""
            if self._begun or self._wbits != _ANY_DEFLATE:
                raise
            self._wbits = -zlib.MAX_WBITS  # "deflate" without a frame, as some servers mean it
            self._unzip = zlib.decompressobj(self._wbits)
            piece = self._unzip.decompress(data, _STEP_BYTES)
        self._begun = True
        ended = self._unzip.eof
        self._rest = self._unzip.unused_data if ended else self._unzip.unconsumed_tail
        if ended and self._wbits != _GZIP:
            self._rest = b""  # only gzip has members
        self.hungry = not self._rest and len(piece) < _STEP_BYTES
        return piece


_GZIP = 16 + zlib.MAX_WBITS
_ANY_DEFLATE = zlib.MAX_WBITS


class _Zstd:
    def __init__(self) -> None:
        options = {_zstd.DecompressionParameter.window_log_max: _ZSTD_WINDOW_LOG}
        self._new: Callable[[], Any] = lambda: _zstd.ZstdDecompressor(options=options)
        self._unpack = self._new()
        self._rest = b""
        self.members = 0

    def step(self, data: bytes) -> bytes:
        data, self._rest = self._rest + data, b""
        if self._unpack.eof:
            self.members += 1
            self._unpack = self._new()
        piece: bytes = self._unpack.decompress(data, _STEP_BYTES)
        if self._unpack.eof:
            self._rest = self._unpack.unused_data
        return piece

    @property
    def hungry(self) -> bool:
        return not self._rest if self._unpack.eof else bool(self._unpack.needs_input)


class _Brotli:
    members = 0

    def __init__(self) -> None:
        self._unpack = _brotli.Decompressor()
        self.hungry = True

    def step(self, data: bytes) -> bytes:
        piece: bytes = self._unpack.process(data, output_buffer_limit=_STEP_BYTES)
        self.hungry = not piece  # the library says it takes more while it still has some to give
        return piece


_DECODERS: dict[str, Callable[[], _Zlib | _Zstd | _Brotli]] = {
    "gzip": lambda: _Zlib(_GZIP),
    "x-gzip": lambda: _Zlib(_GZIP),
    "deflate": lambda: _Zlib(_ANY_DEFLATE),
}
_ERRORS: list[type[Exception]] = [zlib.error, EOFError]


def _first_of(*names: str) -> Any:
    for name in names:
        with suppress(ImportError):
            return import_module(name)
    return None


_zstd = _first_of("compression.zstd", "backports.zstd")  # the first from Python 3.14 on
if _zstd is not None:
    _DECODERS["zstd"] = _Zstd
    _ERRORS.append(_zstd.ZstdError)
_brotli = _first_of("brotli")
if _brotli is not None and hasattr(_brotli.Decompressor, "can_accept_more_data"):
    _DECODERS["br"] = _Brotli  # older ones cannot be bounded
    _ERRORS.append(_brotli.error)
_BROKEN = tuple(_ERRORS)

READABLE = frozenset(_DECODERS)


class Inflater:
    """Reads a packed body piece by piece.

    Args:
        coding: one of `READABLE`.
        at_most_bytes: of plain bytes.

    Attributes:
        failed: True once the bytes were no such thing, or too many; nothing is read any more.
        too_large: True once they were too many.

    """

    __slots__ = ("_decoder", "_left_bytes", "failed", "too_large")

    def __init__(self, coding: str = "gzip", at_most_bytes: int = PLAIN_MAX_BYTES) -> None:
        """Start at the beginning of a body."""
        self._decoder = _DECODERS[coding]()
        self._left_bytes = at_most_bytes
        self.failed = False
        self.too_large = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the plain bytes of a chunk, in pieces of bounded size."""
        for at in range(0, len(data) or 1, _TAKEN_BYTES):
            yield from self._unpacked(data[at : at + _TAKEN_BYTES])

    def _unpacked(self, data: bytes) -> Iterator[bytes]:
        while not self.failed:
            try:
                piece = self._decoder.step(data)
            except _BROKEN:
                self.failed = True
                return
            data = b""
            self._left_bytes -= len(piece)
            if self._left_bytes < 0 or self._decoder.members > MEMBERS_MOST:
                self.failed = self.too_large = True
                return
            yield piece
            if self._decoder.hungry:
                return


def codings_of(encoding: str) -> tuple[str, ...]:
    """Return the codings that a content-encoding header names, in the order of packing."""
    names = (name.strip().lower() for name in encoding.split(","))
    return tuple(name for name in names if name not in ("", "identity"))


def can_read(encoding: str) -> bool:
    """Return whether `unpacked` knows every coding of a content-encoding header."""
    codings = codings_of(encoding)
    return len(codings) <= _CODINGS_MOST and READABLE.issuperset(codings)


def unpacked(body: bytes, encoding: str, *, at_most_bytes: int) -> bytes:
    """Return a body without its content encodings.

    Raises:
        EncodingError: a coding that is not known, bytes that are not of it, or too many.

    """
    codings = codings_of(encoding)
    if len(codings) > _CODINGS_MOST or not READABLE.issuperset(codings):
        known = ", ".join(sorted(READABLE))
        raise EncodingError(
            f"content-encoding {encoding[:40]!r} is not taken: known are {known}", unknown=True
        )
    for coding in reversed(codings):
        inflater = Inflater(coding, at_most_bytes)
        body = b"".join(inflater.feed(body))
        if inflater.failed:
            raise EncodingError(
                f"the body is more than {at_most_bytes} bytes when unpacked"
                if inflater.too_large
                else f"the body is not what content-encoding {coding!r} says: was it packed twice?",
                too_large=inflater.too_large,
            )
    return body


def is_misnamed(body: bytes, encoding: str) -> bool:
    """Return whether a body is plain JSON, whatever coding its header names.

    Some gateways undo a provider's coding, and pass its header on.
    """
    if not encoding or not is_plain(body):
        return False
    try:
        unpacked(body, encoding, at_most_bytes=PLAIN_MAX_BYTES)
    except EncodingError as error:
        return not error.too_large
    return not codings_of(encoding)


def plain(body: bytes, encoding: str, at_most_bytes: int = PLAIN_MAX_BYTES) -> bytes:
    """Return a body without its content encoding; empty if nobody here can read it."""
    return plain_unless_large(body, encoding, at_most_bytes) or b""


def plain_unless_large(
    body: bytes, encoding: str, at_most_bytes: int = PLAIN_MAX_BYTES
) -> bytes | None:
    """Return a body without its content encoding; empty if it is none, None if it is too large."""
    if not encoding:
        return body
    try:
        return unpacked(body, encoding, at_most_bytes=at_most_bytes)
    except EncodingError as error:
        if error.too_large:
            return None
        return body if is_misnamed(body, encoding) else b""
