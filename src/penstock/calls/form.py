"""The fields of a multipart form, read as its bytes pass; of files only the size is kept."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

try:
    from python_multipart import multipart
    from python_multipart.exceptions import FormParserError
except ModuleNotFoundError:  # a program's own calls need no extra: a default estimate stands in
    multipart = None  # type: ignore[assignment]

FORM_TYPE = "multipart/form-data"
MOST_FIELD_BYTES = 1 << 16
"""Longer fields are cut: a prompt for a picture has 32,000 characters at most (OpenAI)."""
MOST_FIELDS = 256
MOST_PARTS = 1000
"""Each takes 12 us: 32 MB of small ones would hold the loop for 7 s. A call has some twenty. Lines
that only begin as the boundary does take as long, and count as well."""


class FormError(ValueError):
    """A form that cannot be read; the text names the rule."""


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file in a form.

    Attributes:
        size_bytes: of its content.

    """

    size_bytes: int


class FormReader:
    """Reads one form; feed it every piece, in order."""

    def __init__(self, content_type: str) -> None:
        """Read the boundary.

        Raises:
            FormError: the type names none, or python-multipart is not installed.

        """
        if multipart is None:
            raise FormError("a form is read by the package python-multipart, which is missing")
        _, options = multipart.parse_options_header(content_type)
        boundary = options.get(b"boundary")
        if not boundary:
            raise FormError("content-type must name the form's boundary")
        self._fields: dict[str, Any] = {}
        self._disposition = b""
        self._header = b""
        self._name: str | None = None
        self._is_file = False
        self._text = bytearray()
        self._size = 0
        self._mark, self._marks = b"\r\n--" + boundary, 0
        self._whole = False
        try:
            self._parser = multipart.MultipartParser(boundary, self._callbacks())
        except FormParserError:
            raise FormError("content-type names a boundary that cannot be one") from None

    def feed(self, piece: bytes) -> None:
        """Read one piece.

        Raises:
            FormError: it is no form.

        """
        self._marks += piece.count(self._mark)
        if self._marks > MOST_PARTS:
            raise FormError(f"the form has more than {MOST_PARTS} parts: is it a form at all?")
        try:
            self._parser.write(piece)
        except FormParserError:
            raise FormError("the body is not the multipart form that content-type says") from None

    def fields(self) -> dict[str, Any]:
        """Return the fields: texts, `FilePart`s, and lists of those that stand more than once.

        Raises:
            FormError: the form has not ended.

        """
        if not self._whole:
            raise FormError("the form has no end: was it cut short?")
        return self._fields

    def _callbacks(self) -> Any:
        def header_field(data: bytes, start: int, end: int) -> None:
            self._header += data[start:end]

        def header_value(data: bytes, start: int, end: int) -> None:
            if self._header.lower() == b"content-disposition":
                self._disposition += data[start:end]

        def part_data(data: bytes, start: int, end: int) -> None:
            self._size += end - start
            if not self._is_file:
                self._text += data[start : min(end, start + MOST_FIELD_BYTES - len(self._text))]

        callbacks: dict[str, Callable[..., None]] = {
            "on_part_begin": self._begin_part,
            "on_header_field": header_field,
            "on_header_value": header_value,
            "on_header_end": self._end_header,
            "on_headers_finished": self._end_headers,
            "on_part_data": part_data,
            "on_part_end": self._end_part,
            "on_end": self._end,
        }
        return callbacks

    def _begin_part(self) -> None:
        self._disposition = self._header = b""
        self._text.clear()
        self._size = 0

    def _end_header(self) -> None:
        self._header = b""

    def _end_headers(self) -> None:
        _, options = multipart.parse_options_header(self._disposition)
        name = options.get(b"name")
        self._name = None if name is None else name.decode(errors="replace")
        self._is_file = b"filename" in options

    def _end_part(self) -> None:
        name = self._name
        if name is None:
            return
        value: Any = FilePart(self._size) if self._is_file else _value(name, bytes(self._text))
        name = name.removesuffix("[]")
        if name in self._fields:
            known = self._fields[name]
            self._fields[name] = [*known, value] if isinstance(known, list) else [known, value]
        elif len(self._fields) < MOST_FIELDS:
            self._fields[name] = value

    def _end(self) -> None:
        self._whole = True


def _value(name: str, text: bytes) -> Any:
    """Return a field as a JSON body would hold it."""
    if name == "stream" and text in (b"true", b"false"):
        return text == b"true"
    if name == "n" and text.isdigit() and len(text) < 10:
        return int(text)
    return text.decode(errors="replace")


def is_form(content_type: str) -> bool:
    """Return whether a body of this type is a multipart form."""
    return content_type[: len(FORM_TYPE)].lower() == FORM_TYPE


def form_of(content_type: str, body: bytes) -> dict[str, Any]:
    """Return the fields of a whole form.

    Raises:
        FormError: it is none.

    """
    reader = FormReader(content_type)
    reader.feed(body)
    return reader.fields()
