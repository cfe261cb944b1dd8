"""`/v1/models`: relayed beside the scheduler, since it costs the provider nothing."""

import re
from typing import TYPE_CHECKING

from penstock.integrations.wire.endpoint import Vendor
from penstock.proxy.declined import Declined
from penstock.proxy.headers import credential, one, upward
from penstock.proxy.intake import Scope
from penstock.proxy.link import Link
from penstock.proxy.reply import Send, read_headers, send_whole
from penstock.proxy.routing import serves
from penstock.proxy.upstream.errors import UpstreamError

if TYPE_CHECKING:
    from penstock.proxy.sidecar import Sidecar

_ONE_MODEL = re.compile(r"/v1/models/[A-Za-z0-9][A-Za-z0-9._:@/-]{0,255}\Z")
MOST_BYTES = 16 << 20


async def relay_listing(sidecar: "Sidecar", scope: Scope, send: Send) -> int:
    """Relay the list of models, or one model's page; return the status sent.

    Raises:
        Declined: no upstream fits, the path is odd, or the upstream did not answer.

    """
    headers = scope["headers"]
    sidecar.front.authorise(headers)
    path: str = scope["path"]
    model = path.removeprefix("/v1/models").lstrip("/")
    if model and (not _ONE_MODEL.match(path) or ".." in path or "//" in path):
        raise Declined(404, "unknown_path", "There is no such model page.")
    link = _link(sidecar, headers, model)
    if link.wants_caller_key and credential(headers) is None:
        raise Declined(401, "missing_api_key", "No API key was sent.")
    target = path.removeprefix("/v1").encode("ascii")
    query: bytes = scope["query_string"]
    if query:
        target += b"?" + query
    caller = upward(headers, keep_credentials=link.wants_caller_key)
    try:
        answer = await link.send(b"GET", target, caller, b"")
        try:
            body = b""
            while data := await answer.chunk():
                body += data
                if len(body) > MOST_BYTES:
                    raise Declined(502, "upstream_broken", "The upstream's list is too long.")
            await send_whole(send, answer.status, read_headers(answer.headers).kept, body)
            return answer.status
        finally:
            answer.close()
    except UpstreamError:
        raise Declined(502, "upstream_broken", "The upstream did not answer.") from None


def _link(sidecar: "Sidecar", headers: list[tuple[bytes, bytes]], model: str) -> Link:
    vendor = Vendor.ANTHROPIC if one(headers, b"anthropic-version") else Vendor.OPENAI
    links = [link for link in sidecar.links.values() if link.vendor == vendor]
    if not links:
        links = list(sidecar.links.values())
    if model:
        links = [link for link in links if serves(link.serves, f"{link.vendor}/{model}")]
        if not links:
            raise Declined(404, "model_not_found", f"No upstream here serves {model!r}.")
    return links[0]
