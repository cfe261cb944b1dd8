"""A model's name, put into a body that otherwise stays as it was sent: JSON or a form."""

import json
import re
from collections.abc import Mapping

from penstock.wire import jsonio

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKEN = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_VALUE = re.compile(rb"\s*:\s*(" + _STRING + rb")", re.DOTALL)
_DASHES, _LINE = b"--", b"\r\n"
_MODEL_PART = re.compile(rb';\s*name="?model"?\s*(?:;|\Z)', re.IGNORECASE)
_OPEN, _CLOSE = b"{[", b"}]"


def renamed(body: bytes, names: Mapping[str, str], *, key: str = "model") -> bytes:
    """Return a JSON object or a form with its `model` renamed; every other byte is as it was.

    A scan, because parsing and writing anew would change spaces, escapes and numbers such as
    1e2. The body must be valid JSON, which callers' bodies are by now.

    Args:
        body: a JSON object or a multipart form.
        names: the upstream's names by the callers' names; others stay.
        key: whose value it is; a form's is always its model.

    """
    if body.startswith(_DASHES):
        return _form_renamed(body, names)
    body = _in_utf_8(body)
    once = body.count(b'"%b"' % key.encode()) == 1
    pieces: list[bytes] = []
    kept = depth = 0
    for match in _TOKEN.finditer(body):
        token = match[0]
        if token in _OPEN:
            depth += 1
        elif token in _CLOSE:
            depth -= 1
        elif depth == 1:
            value = _VALUE.match(body, match.end())
            if value is None or jsonio.lenient_loads(token) != key:
                continue
            name = names.get(jsonio.lenient_loads(value[1]))
            if name is not None:
                pieces += [body[kept : value.start(1)], jsonio.dumps(name)]
                kept = value.end(1)
            if once:
                break
    return b"".join([*pieces, body[kept:]]) if pieces else body


def with_model(body: bytes, name: str, *, key: str = "model") -> bytes:
    """Return a JSON object or a form that has no `key` with this one at its beginning."""
    if body.startswith(_DASHES):
        head = b'\r\nContent-Disposition: form-data; name="%b"\r\n\r\n' % key.encode()
        return body.partition(_LINE)[0] + head + name.encode() + _LINE + body
    before, brace, after = _in_utf_8(body).partition(b"{")
    comma = b"" if after.lstrip().startswith(b"}") else b","
    return before + brace + b'"%b":' % key.encode() + jsonio.dumps(name) + comma + after


def _in_utf_8(body: bytes) -> bytes:
    """Return a JSON text as it is, or from UTF-16 or UTF-32, whose first letter has a zero byte."""
    if b"\0" not in body[:4]:
        return body
    text = body.decode(json.detect_encoding(body), "surrogatepass")
    return text.encode("utf-8", "surrogatepass")


def _form_renamed(body: bytes, names: Mapping[str, str]) -> bytes:
    """Return a form with its `model` renamed; its boundary is its first line."""
    boundary = _LINE + body.partition(_LINE)[0]
    start = 0
    while (end := body.find(boundary, start + 1)) > 0:
        at = body.find(_LINE * 2, start, end)
        if at > 0 and any(_MODEL_PART.search(line) for line in body[start:at].split(_LINE)):
            name = names.get(body[at + 4 : end].decode(errors="replace"))
            return body if name is None else body[: at + 4] + name.encode() + body[end:]
        start = end
    return body
