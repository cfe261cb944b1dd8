"""Lists of models and counts of tokens: relayed beside the scheduler, as they cost nothing."""

import asyncio
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from penstock.calls.endpoint import COUNT_TOKENS
from penstock.listener import Scope
from penstock.proxy.declined import Declined
from penstock.proxy.headers import Header, credential, one, upward
from penstock.proxy.reply import Send, read_headers, send_whole
from penstock.proxy.routing import serves
from penstock.proxy.upstream.client import UpstreamClient
from penstock.proxy.upstream.errors import UpstreamError
from penstock.wire.endpoint import Vendor

if TYPE_CHECKING:
    from penstock.proxy.sidecar import Sidecar

_ONE_MODEL = re.compile(r"/v1/models/[A-Za-z0-9][A-Za-z0-9._:@/-]{0,255}\Z")
MOST_BYTES = 16 << 20
PATIENCE_S = 10.0
"""For each upstream: a list is short, and another one may have it."""


@dataclass(frozen=True, slots=True)
class _Asked:
    method: str
    target: str
    body: bytes


@dataclass(frozen=True, slots=True)
class _Page:
    status: int
    headers: list[Header]
    body: bytes


async def relay_listing(sidecar: "Sidecar", scope: Scope, send: Send) -> int:
    """Relay the list of models, or one model's page; return the status sent.

    The first upstream that has it is heard. Where none has, the first one's answer is relayed.

    Raises:
        Declined: no upstream fits, the path is odd, or no upstream answered.

    """
    headers = scope["headers"]
    sidecar.reader.authorise(headers)
    path: str = scope["path"]
    model = path.removeprefix("/v1/models").lstrip("/")
    if model and (not _ONE_MODEL.match(path) or ".." in path or "//" in path):
        raise Declined(404, "unknown_path", "There is no such model page.")
    vendor = Vendor.ANTHROPIC if one(headers, b"anthropic-version") else Vendor.OPENAI
    links = _links(sidecar, vendor, model, others=True)

    def asked(link: UpstreamClient) -> _Asked:
        tail = "/" + quote(link.name_of(model), safe="/:@") if model else ""
        return _Asked("GET", "/models" + tail, b"")

    return await _relay(links, scope, asked, send)


async def relay_count(sidecar: "Sidecar", scope: Scope, model: str, body: bytes, send: Send) -> int:
    """Relay Anthropic's count of a prompt's tokens, likewise; return the status sent.

    Raises:
        Declined: no upstream fits, or none answered.

    """
    links = _links(sidecar, COUNT_TOKENS.vendor, model, others=False)
    return await _relay(links, scope, lambda _: _Asked("POST", COUNT_TOKENS.tail, body), send)


async def _relay(
    links: list[UpstreamClient], scope: Scope, asked: Callable[[UpstreamClient], _Asked], send: Send
) -> int:
    headers = scope["headers"]
    has_key = credential(headers) is not None
    ready = [link for link in links if has_key or not link.wants_caller_key]
    if not ready:
        raise Declined(401, "missing_api_key", "No API key was sent.")
    query: str = scope["query_string"].decode()
    page = await _first(ready, asked, "?" + query if query else "", headers)
    await send_whole(send, page.status, read_headers(page.headers).kept, page.body)
    return page.status


async def _first(
    links: list[UpstreamClient],
    asked: Callable[[UpstreamClient], _Asked],
    query: str,
    headers: list[Header],
) -> _Page:
    denial: _Page | None = None
    for link in links:
        try:
            async with asyncio.timeout(PATIENCE_S):
                page = await _ask(link, asked(link), query, headers)
        except (UpstreamError, TimeoutError):
            continue
        if page.status < 400:
            return page
        denial = denial or page
    if denial is None:
        raise Declined(502, "upstream_broken", "No upstream answered.")
    return denial


async def _ask(link: UpstreamClient, asked: _Asked, query: str, headers: list[Header]) -> _Page:
    caller = upward(headers, keep_credentials=link.wants_caller_key, as_plain=True)
    answer = await link.send(asked.method, asked.target + query, caller, asked.body)
    try:
        body = b""
        while data := await answer.chunk():
            body += data
            if len(body) > MOST_BYTES:
                raise Declined(502, "upstream_broken", "The upstream's list is too long.")
        return _Page(answer.status, answer.headers, body)
    finally:
        answer.close()


def _links(sidecar: "Sidecar", vendor: Vendor, model: str, *, others: bool) -> list[UpstreamClient]:
    """Return who may be asked; those of another vendor only if there is none of this one."""
    links = [link for link in sidecar.links.values() if link.vendor == vendor]
    if not links and others:
        links = list(sidecar.links.values())
    if model:
        links = [link for link in links if serves(link.serves, f"{link.vendor}/{model}")]
    if not links:
        raise Declined(404, "model_not_found", f"No upstream here serves {model!r}.")
    return links
