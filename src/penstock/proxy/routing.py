"""Which call a path asks for, and which upstreams may serve its model.

Whatever base URL a client was given, only that has changed: a path is one of the vendors' own,
perhaps without its /v1 or behind what stands before it at Azure, Anthropic-compatible servers or
Gemini. Paths are taken apart as they were sent: what is encoded (`%2F` in a model's name) stays one
segment. For models there are names, as the scheduler knows nothing else.

A renamed model is put into a body that otherwise stays as it was sent: JSON or a form.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from urllib.parse import unquote

from penstock.calls.endpoint import (
    ENDPOINTS,
    MODELS,
    READING,
    Endpoint,
    Family,
    endpoint_of,
    family_of,
    without_odd_slashes,
)
from penstock.core.settings import fits
from penstock.wire import jsonio
from penstock.wire.endpoint import Vendor

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


MOST_NAMES = 500
"""Distinct model names that get a service-time fit of their own; callers choose the names, so
without a bound they would choose how much memory we use."""
Patterns = tuple[str, ...]
"""Model patterns of one upstream, as the scheduler's settings hold them.

They stand as `dialect/model`, because one model name may be served in either dialect and a
request must not go to an upstream that does not speak its own.
"""
_DEPLOYMENT = re.compile(r"/openai/deployments/([^/]+)(/.+)\Z")
_PREFIXES = (
    ("/openai/v1/", None),
    ("/anthropic/v1/", Vendor.ANTHROPIC),
    ("/v1beta/openai/", None),
    ("/v2/rerank", None),
)
_PLAIN = re.compile(r"%([0-9A-Fa-f]{2})")
_ODD = re.compile(r"[\x00-\x20\x7f\\]")


@dataclass(frozen=True, slots=True)
class Route:
    """What a path asks for.

    Attributes:
        path: as the vendor documents it, from /v1 on, still encoded.
        endpoint: the table's row; None where the call is relayed by its family.
        family: of a path that no row has; None if there is none: then `relay_others` decides.
        vendor: whose API the path belongs to; None where the path does not tell.
        model: as the path names it, else empty.

    """

    path: str
    endpoint: Endpoint | None
    family: Family | None
    vendor: Vendor | None
    model: str = ""

    def asked_by(self, method: str) -> "Route":
        """Return what the path asks for by this method: of what calls have stored, its family's."""
        if method not in READING or self.endpoint is None or not self.endpoint.scheduled:
            return self
        family = family_of(self.path)
        return self if family is None else replace(self, endpoint=None, family=family)

    @property
    def tail(self) -> str:
        """What follows a base URL that ends in /v1."""
        return self.path.removeprefix("/v1")

    @property
    def segments(self) -> list[str]:
        """The path's parts after /v1, decoded."""
        return [unquote(each) for each in self.path.split("/")[2:]]


_AS_DOCUMENTED = {
    row.path: Route(row.path, row, None, None if row is MODELS else row.vendor) for row in ENDPOINTS
}
"""What nearly every call asks for; a look-up costs 0.1 us, taking a path apart 10."""


def route_of(raw_path: str) -> Route | None:
    """Return what a path asks for; None for one that cannot be sent anywhere.

    Args:
        raw_path: as it stands in the request line, without the query.

    """
    known = _AS_DOCUMENTED.get(raw_path)
    if known is not None:
        return known
    raw_path = without_odd_slashes(raw_path)
    if not raw_path.isascii() or not _is_sound(raw_path):
        return None
    path, vendor, model = _canonical(_PLAIN.sub(_unescaped, raw_path))
    if not path.startswith("/v1/"):
        return None
    endpoint = endpoint_of(path)
    if "%2f" in path.lower() and endpoint is not MODELS:
        return None  # a slash belongs into a model's name only; elsewhere it would hide a path
    if endpoint is MODELS:
        model = unquote(path.removeprefix("/v1/models").lstrip("/"))
    family = None if endpoint is not None else family_of(path)
    if endpoint is not None and endpoint is not MODELS:
        vendor = endpoint.vendor
    elif family is not None and family.vendor is not None:
        vendor = family.vendor
    return Route(path, endpoint, family, vendor, model)


def _canonical(path: str) -> tuple[str, Vendor | None, str]:
    """Return the path from /v1 on, and what its prefix says."""
    deployment = _DEPLOYMENT.match(path)
    if deployment is not None:
        return "/v1" + deployment[2], Vendor.OPENAI, unquote(deployment[1])
    if path == "/v2/rerank":  # Cohere
        return "/v1/rerank", None, ""
    for prefix, vendor in _PREFIXES:
        if path.startswith(prefix):
            return "/v1/" + path[len(prefix) :], vendor, ""
    if path.startswith("/v1/"):
        return path, None, ""
    bare = "/v1" + path
    known = endpoint_of(bare) is not None or family_of(bare) is not None
    return (bare if known else path), None, ""


def _unescaped(match: re.Match[str]) -> str:
    """Return a letter, digit or -._~ as itself, which is the same path (RFC 3986, 6.2.2.2)."""
    char = chr(int(match[1], 16))
    return char if char.isascii() and (char.isalnum() or char in "-._~") else match[0]


def _is_sound(path: str) -> bool:
    """Return whether every segment stays where it stands, however often a server decodes it."""
    for segment in path.split("/")[1:]:
        text = segment
        for _ in range(3):
            if not text or text in (".", "..") or _ODD.search(text):
                return False
            if any(part in (".", "..") for part in text.split("/")):
                return False
            text = unquote(text)
    return True


def patterns(dialect: str, models: Iterable[str]) -> Patterns:
    """Return the core's `models` for one upstream."""
    return tuple(f"{dialect}/{model}" for model in models)


def serves(served: Patterns, name: str) -> bool:
    """Return whether a model, as `dialect/model`, falls under one of the patterns."""
    return any(fits(pattern, name) for pattern in served)


@dataclass(frozen=True, slots=True)
class Target:
    """A model as the scheduler knows it.

    Attributes:
        name: the scheduler's name of it.
        needs_caller_key: whether an upstream that may get the request uses the caller's key.

    """

    name: str
    needs_caller_key: bool


class Routing:
    """Turns a caller's model into the name that the scheduler knows."""

    def __init__(
        self, served: Iterable[tuple[Patterns, bool]], limited: Iterable[str] = ()
    ) -> None:
        """Take every upstream's patterns, and whether it wants the caller's key.

        `limited` are names that have limits of their own: they are always told apart.
        """
        self._served = tuple(served)
        self._limited = frozenset(limited)
        self._known: dict[tuple[str, str], Target] = {}

    def resolve(self, dialect: str, model: str) -> Target | None:
        """Return the model's target, or None if no upstream serves it."""
        known = self._known.get((dialect, model))
        if known is not None:
            return known
        name = f"{dialect}/{model}"
        fitting = [(served, wants) for served, wants in self._served if serves(served, name)]
        if not fitting:
            return None
        needs_key = any(wants for _, wants in fitting)
        if len(self._known) >= MOST_NAMES and name not in self._limited:
            # No fit of its own any more: it shares that of the pattern it falls under, unless
            # other upstreams serve that pattern's text.
            shared = _shared_name(name, fitting)
            return Target(shared if self._same_upstreams(shared, fitting) else name, needs_key)
        target = self._known[dialect, model] = Target(name, needs_key)
        return target

    def _same_upstreams(self, name: str, fitting: list[tuple[Patterns, bool]]) -> bool:
        those = [served for served, _ in self._served if serves(served, name)]
        return those == [served for served, _ in fitting]


def _shared_name(name: str, fitting: list[tuple[Patterns, bool]]) -> str:
    return next(pattern for pattern in fitting[0][0] if fits(pattern, name))
