"""Calls that are relayed beside the scheduler, to the upstream that holds what they name.

An id tells which upstream that is, if penstock has seen it made there. One that it has not seen is
asked for at each upstream in turn, until one knows it; where none does, the first answer is
relayed. Nothing of it speaks against an upstream.
"""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from penstock.asgi import Receive, Scope
from penstock.calls.endpoint import COUNT_TOKENS, MODELS, NEVER, OF_FAMILIES, under
from penstock.calls.facts import ids_in_reply, references_of
from penstock.core.settings import fits
from penstock.proxy.bodies import Held
from penstock.proxy.declined import (
    Declined,
    DialError,
    SilenceError,
    UpstreamError,
    check_method,
    no_key,
)
from penstock.proxy.headers import Header, Send, downward, of_events, one, upward
from penstock.proxy.routing import Route, serves
from penstock.proxy.upstream.client import UpstreamClient
from penstock.proxy.upstream.http import UpstreamAnswer
from penstock.runtime.accounts import credential
from penstock.wire import jsonio
from penstock.wire.endpoint import Vendor

if TYPE_CHECKING:
    from penstock.proxy.sidecar import Sidecar

PATIENCE_S = 10.0
"""For each upstream that is asked for its models: a list is short, and another one may have it."""

READ_BYTES = 1 << 20
"""How much of an answer is read for the ids of what was made."""

READ_AHEAD_BYTES = 1 << 20
"""What is held of a body that passes piece by piece to an upstream that takes none: of 300 with
3 MB each the process grew by 1.06 MB for each."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")


@dataclass(slots=True)
class _RelayedCall:
    """What is sent: a whole body, or one that passes piece by piece and can be sent once."""

    method: str
    body: bytes
    pieces: "_Pieces | None"
    model: str
    ids: list[str]


class UnscheduledRelay:
    """Relays one call."""

    def __init__(self, sidecar: "Sidecar", route: Route, scope: Scope, send: Send) -> None:
        """Prepare; `run` does it."""
        self._sidecar = sidecar
        self._route = route
        self._scope = scope
        self._send = send
        self._headers: list[Header] = scope["headers"]

    async def run(self, receive: Receive, held: Held) -> int:
        """Relay the call; return the status sent.

        Raises:
            Declined: no upstream fits, or none answered.

        """
        self._check_method()
        self._sidecar.reader.authorise(self._headers)
        call = await self._call(receive, held)
        links = self._links(call)
        denial: tuple[UpstreamAnswer, UpstreamClient] | None = None
        trouble: UpstreamError | TimeoutError | None = None
        try:
            for link in links:
                try:
                    answer = await self._ask(link, call)
                except (UpstreamError, TimeoutError) as error:
                    trouble = trouble or error
                    if self._may_go_on(call, error):
                        continue
                    break
                if not self._is_elsewhere(answer.status):
                    return await self._pass_on(answer, link, call)
                self._sidecar.holders.forget(call.ids)
                if denial is None:
                    denial = answer, link
                else:
                    answer.close()
                if call.pieces is not None:
                    break
            if denial is not None:
                return await self._pass_on(*denial, call)
        finally:
            if denial is not None:
                denial[0].close()
        raise _no_answer(trouble)

    # What is asked

    def _check_method(self) -> None:
        route, method = self._route, self._scope["method"]
        if route.endpoint is not None:
            taken = route.endpoint.methods
        else:
            taken = METHODS if route.family is None else OF_FAMILIES
        check_method(method, route.path, taken)

    async def _call(self, receive: Receive, held: Held) -> _RelayedCall:
        method: str = self._scope["method"]
        ids = [] if self._route.endpoint is MODELS else self._route.segments[1:]
        call = _RelayedCall(method, b"", None, self._route.model, ids)
        sends = one(self._headers, b"content-length") not in (None, b"0")
        if not sends and one(self._headers, b"transfer-encoding") is None:
            return call
        kind = one(self._headers, b"content-type") or b"application/json"
        if not kind.startswith(b"application/json"):
            call.pieces = _Pieces(receive)
            held.take(READ_AHEAD_BYTES, coming=True)
            return call
        reader = self._sidecar.reader
        call.body = await reader.plain_body(self._headers, receive, held)
        parsed = jsonio.lenient_object(call.body)
        if parsed is not None:
            call.ids += references_of(parsed)
            model = parsed.get("model")
            call.model = model if isinstance(model, str) else call.model
        elif self._route.endpoint is COUNT_TOKENS:
            raise Declined(400, "invalid_json", "The body must be a JSON object.")
        if self._route.endpoint is COUNT_TOKENS and not call.model:
            raise Declined(400, "invalid_model", "model must be a non-empty string.")
        return call

    def _links(self, call: _RelayedCall) -> list[UpstreamClient]:
        """Return who may be asked, in their order."""
        route, sidecar = self._route, self._sidecar
        vendor = route.vendor or vendor_of(self._headers)
        known = list(sidecar.links.values())
        links = [link for link in known if link.vendor is vendor]
        if not links and (route.endpoint is MODELS or route.vendor is None):
            links = known
        if call.model:
            links = [link for link in links if serves(link.serves, f"{link.vendor}/{call.model}")]
        if not links:
            what = f"No upstream here serves {call.model!r} at {route.path}."
            raise Declined(404, "model_not_found" if call.model else "unknown_path", what)
        if route.endpoint is None and route.family is None:
            if any(under(route.path.lower(), path) for path in NEVER):
                raise unknown_path()
            links = [link for link in links if _relays(link, route)]
            if not links:
                raise unknown_path()
        has_key = credential(self._headers) is not None
        links = [link for link in links if has_key or not link.wants_caller_key]
        if not links:
            raise no_key()
        holder = sidecar.holders.of(call.ids, now=sidecar.driver.now())
        return [link for link in links if link.name == holder] or links

    # What is answered

    async def _ask(self, link: UpstreamClient, call: _RelayedCall) -> UpstreamAnswer:
        headers = upward(
            self._headers, keep_credentials=link.wants_caller_key, as_plain=call.pieces is None
        )
        tail = self._route.tail
        if self._route.endpoint is MODELS and link.renames(self._route.model):
            tail = "/models/" + quote(link.name_of(self._route.model), safe="/:@")
        query = self._scope["query_string"].decode()
        target = tail + ("?" + query if query else "")
        body: bytes | AsyncIterable[bytes] = call.body
        if call.pieces is not None:
            body = call.pieces
            length = one(self._headers, b"content-length")
            if length is not None:
                headers.append(("content-length", length.decode("ascii")))
        async with asyncio.timeout(PATIENCE_S if self._is_listing else None):
            # Of a list few servers answer HEAD: FastAPI's do not.
            method = "GET" if self._route.endpoint is MODELS else call.method
            return await link.send(method, target, headers, body)

    @property
    def _is_content(self) -> bool:
        """Whether callers wrote what is answered: it may name anything."""
        return self._route.segments[-1] in ("content", "results")

    @property
    def _is_listing(self) -> bool:
        return self._route.endpoint is not None

    def _is_elsewhere(self, status: int) -> bool:
        """Return whether another upstream may have what this one has not."""
        return status >= 400 if self._is_listing else status == 404

    def _may_go_on(self, call: _RelayedCall, error: Exception) -> bool:
        """Return whether another may be asked: what may have been acted on is not sent twice."""
        if self._is_listing or isinstance(error, DialError):
            return call.pieces is None or not call.pieces.begun
        return call.method in ("GET", "HEAD")

    async def _pass_on(
        self, answer: UpstreamAnswer, link: UpstreamClient, call: _RelayedCall
    ) -> int:
        """Relay an answer as it comes, and learn who holds what."""
        said = link.hidden if answer.status >= 400 else bytes
        seen = downward([(name, said(value)) for name, value in answer.headers])
        kept: list[bytes] = []
        size = 0
        headers = of_events(seen.kept) if seen.is_stream else seen.kept
        head = {"type": "http.response.start", "status": answer.status, "headers": headers}
        try:
            await self._send(head)
            while call.method != "HEAD" and (data := await answer.chunk()):
                piece = said(data)
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
                size += len(data)
                if size <= READ_BYTES:
                    kept.append(data)
            if answer.status < 300 and not self._is_listing and not self._is_content:
                self._learn(link, call, b"".join(kept))
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})
        except UpstreamError:  # begun, so it is cut: the caller must see that it is not whole
            return answer.status
        finally:
            answer.close()
        return answer.status

    def _learn(self, link: UpstreamClient, call: _RelayedCall, text: bytes) -> None:
        holders = self._sidecar.holders
        if call.method == "DELETE":
            holders.forget(call.ids)
            return
        holders.note(ids_in_reply(text), link.name, now=self._sidecar.driver.now())


def vendor_of(headers: list[Header]) -> Vendor:
    """Return whose API a caller speaks, by its headers."""
    return Vendor.ANTHROPIC if one(headers, b"anthropic-version") else Vendor.OPENAI


def unknown_path() -> Declined:
    """Return the answer to a path that leads nowhere."""
    text = (
        "There is nothing at this path. Penstock serves the paths of docs/reference/paths.md; "
        "relay_others of an upstream allows others under /v1."
    )
    return Declined(404, "unknown_path", text)


def _relays(link: UpstreamClient, route: Route) -> bool:
    others = link.relay_others
    if others is None:
        return link.wants_caller_key
    return any(fits(pattern, route.tail) for pattern in others)


class _Pieces:
    """A body as it comes; once begun it cannot be sent again."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.begun = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        self.begun = True
        while True:
            message = await self._receive()
            yield message["body"]
            if not message["more_body"]:
                return


def _no_answer(trouble: Exception | None) -> Declined:
    if isinstance(trouble, SilenceError):
        return Declined(504, "upstream_timeout", "The upstream did not answer in time.")
    if isinstance(trouble, DialError):
        return Declined(502, "upstream_unreachable", "No upstream can be reached.")
    return Declined(502, "upstream_broken", "No upstream answered.")
