"""The lines of a batch file, and of the files that answer it.

Source:
    OpenAI's Batch API: input lines with `custom_id`, `method`, `url`, `body`; output lines with
    `id`, `custom_id`, `response` and `error`; failures in a file of their own.
"""

import codecs
import gzip
import hashlib
import zlib
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from penstock.calls.endpoint import Endpoint, endpoint_of
from penstock.errors import PenstockError
from penstock.wire import jsonio

PROBLEMS_SHOWN = 10
ID_PREFIX = "batch_req_"
"""Before the line's number, in the `id` of its answer."""
ANSWER_BEGINS = f'{{"id":"{ID_PREFIX}'.encode()
MOST_LINE_BYTES = 64 << 20
"""No provider takes as much; a file without line ends would be read into memory otherwise."""
_GZIP = b"\x1f\x8b"
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_PARTS = 16
_PART_SHIFT = 64 - 4


class BatchError(PenstockError, ValueError):
    """A batch file that cannot be run, or a checkpoint that does not belong to it."""


@dataclass(frozen=True, slots=True)
class BatchLine:
    """One request of the file.

    Attributes:
        number: of the line in the file, from 1.
        custom_id: the caller's name for it, unique in the file.
        endpoint: what its `url` asks for.
        body: to be sent as it is.

    """

    number: int
    custom_id: str
    endpoint: Endpoint
    body: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Inspection:
    """What a look through the whole file has found.

    Attributes:
        requests: how many lines hold a request.
        last_line: number of the last line.
        fingerprint: SHA-256 of the file, in hex.

    """

    requests: int
    last_line: int
    fingerprint: str


def parse_line(number: int, text: bytes) -> BatchLine:
    """Return the request on a line.

    Raises:
        BatchError: it is none; the text says what is wrong, with the line's number.

    """
    parsed = jsonio.loads_object(text)
    if parsed is None:
        likely = "" if text.endswith(b"\n") else ", and no line's end: was the file cut short?"
        raise BatchError(f"line {number}: no JSON object{likely}")
    custom_id = parsed.get("custom_id")
    if not isinstance(custom_id, str) or not custom_id:
        raise BatchError(f"line {number}: custom_id={custom_id!r} must be a string, not empty")
    if parsed.get("method", "POST") != "POST":
        raise BatchError(f"line {number}: method={parsed['method']!r} must be POST")
    url = parsed.get("url")
    endpoint = (endpoint_of(url) or endpoint_of(f"/v1{url}")) if isinstance(url, str) else None
    if endpoint is None or not (endpoint.scheduled and endpoint.answers_json):
        raise BatchError(f"line {number}: url={url!r} is no endpoint such as /v1/chat/completions")
    body = parsed.get("body")
    if not isinstance(body, dict):
        raise BatchError(f"line {number}: body must be an object")
    if body.get("stream"):
        raise BatchError(f"line {number}: body.stream must not be set: a file cannot be streamed")
    return BatchLine(number, custom_id, endpoint, body)


def inspect(path: Path) -> Inspection:
    """Read the whole file once and refuse it if any line is wrong.

    Nothing is sent for a file that would fail in its middle. Memory: 11 bytes a line.

    Raises:
        BatchError: wrong lines, or a custom_id that stands twice; the first ten are listed.
        OSError: the file cannot be read.

    """
    problems: list[str] = []
    digests = array("Q")
    whole = hashlib.sha256()
    number = 0
    for number, text in _lines(path):
        whole.update(text)
        if not text.strip():
            continue
        try:
            line = parse_line(number, text)
        except BatchError as error:
            problems.append(str(error))
            if len(problems) >= PROBLEMS_SHOWN:
                break
            continue
        digests.append(custom_id_digest(line.custom_id))
    if not problems and not digests:
        problems.append("the file holds no request")
    if not problems:
        problems = _repeated(path, digests)
    if len(problems) == PROBLEMS_SHOWN:
        problems.append("what comes after was not looked at")
    if problems:
        raise BatchError(f"{path} cannot be run:\n  " + "\n  ".join(problems))
    return Inspection(len(digests), number, whole.hexdigest())


def requests_in(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the lines that hold a request, with their numbers."""
    for number, text in _lines(path):
        if text.strip():
            yield number, text


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield every line with its number, from 1: of a plain file or one packed by gzip.

    Raises:
        BatchError: it is no file that can be read twice, or not what its first bytes say.

    """
    if not path.is_file():
        raise BatchError(f"{path}: must be a regular file, for it is read twice; is it a pipe?")
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        plain = gzip.GzipFile(fileobj=file) if packed else file
        number = 0
        try:
            while text := plain.readline(MOST_LINE_BYTES + 1):
                number += 1
                if number == 1:
                    text = _without_mark(path, text)
                if len(text) > MOST_LINE_BYTES:
                    raise BatchError(
                        f"{path} line {number}: more than {MOST_LINE_BYTES >> 20} MB long: do the "
                        "lines end as in JSON Lines?"
                    )
                yield number, text
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise BatchError(
                f"{path} after line {number}: its gzip data is damaged or ends early: was the file "
                "cut short?"
            ) from error


def _without_mark(path: Path, text: bytes) -> bytes:
    """Return the first line without the byte order mark that some editors write."""
    if text.startswith(_UTF16):
        raise BatchError(
            f"{path} is UTF-16: it must be UTF-8; was it written by PowerShell's > operator?"
        )
    return text.removeprefix(codecs.BOM_UTF8)


def output_line(line: BatchLine, status: int, request_id: str, body: Any) -> bytes:
    """Return the output file's line for an answered request."""
    response = {"status_code": status, "request_id": request_id, "body": body}
    return _answer(line, response, None)


def error_line(line: BatchLine, code: str, message: str) -> bytes:
    """Return the error file's line for a request that got no answer."""
    return _answer(line, None, {"code": code, "message": message})


def _answer(line: BatchLine, response: Any, error: Any) -> bytes:
    return (
        jsonio.dumps(
            {
                "id": f"{ID_PREFIX}{line.number}",
                "custom_id": line.custom_id,
                "response": response,
                "error": error,
            }
        )
        + b"\n"
    )


def custom_id_digest(custom_id: str) -> int:
    """Return 64 bits that stand for a custom_id; never 0."""
    name = custom_id.encode(errors="surrogatepass")  # JavaScript cuts emojis in two
    return 1 | int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "big")


def _repeated(path: Path, digests: "array[int]") -> list[str]:
    """Return a complaint for each custom_id that stands twice (equal digests are looked at)."""
    suspects: set[int] = set()
    for part in range(_PARTS):  # sorted as a list they would take 40 bytes each
        ordered = sorted(digest for digest in digests if digest >> _PART_SHIFT == part)
        suspects.update(a for a, b in pairwise(ordered) if a == b)
    if not suspects:
        return []
    first_seen: dict[str, int] = {}
    problems: list[str] = []
    for number, text in requests_in(path):
        name = parse_line(number, text).custom_id
        if custom_id_digest(name) not in suspects:
            continue
        if name in first_seen:
            problems.append(
                f"line {number}: custom_id={name!r} stands on line {first_seen[name]} already"
            )
            if len(problems) >= PROBLEMS_SHOWN:
                break
        first_seen.setdefault(name, number)
    return problems
