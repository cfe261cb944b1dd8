"""A model's other name at an upstream, put into a body that otherwise stays as it was sent."""

import re
from collections.abc import Mapping

import orjson

_STRING = rb'"[^"\\]*(?:\\.[^"\\]*)*"'
_TOKEN = re.compile(_STRING + rb"|[{}\[\]]", re.DOTALL)
_VALUE = re.compile(rb"\s*:\s*(" + _STRING + rb")", re.DOTALL)
_OPEN, _CLOSE = b"{[", b"}]"


def renamed(body: bytes, names: Mapping[str, str]) -> bytes:
    """Return a JSON object with its `model` renamed; every other byte is as it was.

    A scan, because parsing and writing anew would change spaces, escapes and numbers such as
    1e2. The body must be valid JSON, which callers' bodies are by now.

    Args:
        body: a JSON object.
        names: the upstream's names by the callers' names; others stay.

    """
    once = body.count(b'"model"') == 1
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
            if value is None or orjson.loads(token) != "model":
                continue
            name = names.get(orjson.loads(value[1]))
            if name is not None:
                pieces += [body[kept : value.start(1)], orjson.dumps(name)]
                kept = value.end(1)
            if once:
                break
    return b"".join([*pieces, body[kept:]]) if pieces else body
