"""Where an answer in HTTP/1.1 ends: bytes behind that answer nothing, and are never the next reply.

The HTTP libraries find the end themselves, but keep what else came in the same breath: of a
provider, or a proxy before it, that says more than it was asked, the next call on that connection
would get the surplus for its reply.
"""

import re

_LENGTH = re.compile(
    rb"\r\ncontent-length:[ \t]*(\d{1,19}+)(?:[ \t]*,[ \t]*\1)*[ \t]*(?=\r\n)", re.IGNORECASE
)
_LISTED = re.compile(rb"\r\ncontent-length:[^\r]*,", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:[ \t]*chunked[ \t]*\r\n", re.IGNORECASE)
_LAST_CHUNK = re.compile(rb"\n0+[ \t]*(?:;[^\n]*)?\r?\n(?:[^\r\n][^\n]*\n){0,8}\r?\n")
"""With extensions and trailers (RFC 9112, section 7.1), so many that it takes linear time."""
_BEFORE_BYTES = 256
"""How much of the pieces before may belong to a last chunk."""
_BODILESS = (b"204", b"304")
_LATER_VERSION = re.compile(rb"HTTP/1\.[2-9] ")


def mended(data: bytes) -> bytes:
    """Return an answer's first bytes as aiohttp takes them; the same object if they are so.

    A later version of HTTP/1 is to be read as 1.1 (RFC 9110, section 2.5).
    """
    if _LATER_VERSION.match(data):
        data = b"HTTP/1.1" + data[8:]
    return _with_one_length(data)


def _with_one_length(data: bytes) -> bytes:
    """State the length once.

    Some servers state it twice, or beside chunks, which then count. aiohttp refuses both, though a
    recipient may put it right (RFC 9110, section 8.6; RFC 9112, section 6.3), as the SDKs' do.
    """
    end = data.find(b"\r\n\r\n") + 2
    stated = _LENGTH.findall(data, 0, end)
    if not stated:
        return data
    if _CHUNKED.search(data, 0, end):
        length = b""
    elif len(set(stated)) == 1 and (len(stated) > 1 or _LISTED.search(data, 0, end)):
        length = b"content-length: %s\r\n" % stated[0]
    else:
        return data
    return _LENGTH.sub(b"", data[:end]) + length + data[end:]


def body_left(data: bytes) -> int | None:
    """Return how much of a body comes behind an answer's first bytes; None if they do not say."""
    end = data.find(b"\r\n\r\n") + 2
    if end < 2 or not data.startswith(b"HTTP/1.") or data[9:10] == b"1":
        return None
    come = len(data) - end - 2
    if data[9:12] in _BODILESS:
        return -come
    if _CHUNKED.search(data, 0, end):
        return None
    length = _LENGTH.search(data, 0, end)
    return None if length is None else int(length[1]) - come


class LastChunk:
    """Looks for what may be the end of a body in chunks, piece by piece."""

    def __init__(self) -> None:
        """Begin with the head's end, behind which a body may end at once."""
        self._before = b"\r\n"

    def end_in(self, data: bytes) -> int:
        """Return where in the next piece a body may end, its length where nowhere.

        Only who reads the chunks knows whether it does: a chunk may hold the same bytes.
        """
        text = self._before + data
        begin = len(self._before)
        ends = (match.end() for match in _LAST_CHUNK.finditer(text))
        end = next((end for end in ends if end > begin), len(text))
        self._before = text[max(0, end - _BEFORE_BYTES) : end]
        return end - begin
