"""Sends one line of a batch over HTTP."""

import time
from collections.abc import Callable
from typing import Any, Protocol
from urllib.parse import urlsplit

from penstock.batch.lines import BatchError, BatchLine
from penstock.batch.reply import BatchReply, Standing, reply_of
from penstock.calls.endpoint import refuse_endpoint_in
from penstock.calls.hints import CLASS_HEADER, DEADLINE_HEADER, TENANT_HEADER, HintError, hints_of
from penstock.errors import Refused
from penstock.integrations.http.attempt import MISDIRECTED
from penstock.integrations.program import Penstock
from penstock.wire import jsonio
from penstock.wire.encoding import EncodingError, unpacked
from penstock.wire.endpoint import Vendor
from penstock.wire.secret import Secret

MOST_REPLY_BYTES = 64 << 20
"""A longer answer is given up: it would have to be held whole, once for each call in hand."""


_LONGEST_DEADLINE_S = 1e8
"""Three years: a hint's number ends there, and a later deadline is none."""


class Send(Protocol):
    """Sends a line."""

    async def __call__(self, line: BatchLine, *, deadline_s: float | None) -> BatchReply:
        """Send it and return what came back, or that nothing did."""
        ...


class HttpSend:
    """Sends to one base URL: through penstock's transport, or past it to a sidecar.

    Args:
        base_url: as SDKs take it, with or without "/v1" at its end.
        api_key: sent as the vendor wants it; nothing if None.
        penstock: schedules the calls; None where a sidecar does, which then is told the hints.
        traffic_class, tenant: told to the sidecar; None sends no such hint.
        timeout_s: longest silence of the provider.
        transport: sends in place of httpx2's own.

    Attributes:
        on_connection: told whether a connection came about, for each try for one; the transport's
            own tries are seen here only.
        on_stranger: called once, where an answer is good and by no sidecar that should be there.

    """

    def __init__(
        self,
        base_url: str,
        api_key: Secret | None,
        penstock: Penstock | None,
        *,
        traffic_class: str | None = None,
        tenant: str | None = None,
        timeout_s: float = 600.0,
        transport: Any = None,
    ) -> None:
        """Open no connection yet.

        Raises:
            BatchError: the base URL is none, or a hint cannot be.

        """
        import httpx2

        self._where = _address(base_url)
        self._error = httpx2.HTTPError
        self._no_connection = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self._api_key = api_key
        self._hints = _hints(traffic_class, tenant)
        options: dict[str, Any] = {
            "timeout": httpx2.Timeout(timeout_s, connect=10.0),
            "limits": httpx2.Limits(max_connections=None),  # how many fly is bounded elsewhere
            "follow_redirects": False,  # prompts and the key are for this host
        }
        if transport is not None:
            options["transport"] = transport
        if penstock is None:
            self._client = httpx2.AsyncClient(**options)
        else:
            self._client = penstock.async_client(library="httpx2", **options)
        self.on_connection: Callable[[bool], object] = lambda _came_about: None
        self.on_stranger: Callable[[], object] = lambda: None
        self._awaits_sign = penstock is None  # that a sidecar is there

    async def __call__(self, line: BatchLine, *, deadline_s: float | None) -> BatchReply:
        """Send a line and return what came back, or that nothing did."""
        headers = {"content-type": "application/json", **self._hints, **self._keys(line)}
        if deadline_s is not None and deadline_s < _LONGEST_DEADLINE_S:
            headers[DEADLINE_HEADER] = f"{max(deadline_s, 0.001) * 1000:.0f}"
        try:
            async with self._client.stream(
                "POST",
                self._base_url + line.endpoint.path,
                content=jsonio.dumps(line.body),
                headers=headers,
                extensions={"trace": self._trace},
            ) as response:
                body = await _body(response)
        except self._error as error:
            # Its text may quote what was sent, and what was sent holds the key.
            why = f"{type(error).__name__}: no answer came from {self._where}"
            away = isinstance(error, self._no_connection)
            return BatchReply(0, standing=Standing.BROKEN, why=why, away=away)
        except EncodingError as error:
            # Asked again, the provider would pack its answer so again.
            standing = Standing.BLOCKED if error.unknown else Standing.BROKEN
            return BatchReply(0, standing=standing, why=str(error))
        if self._awaits_sign and response.status_code == 200:
            self._awaits_sign = False
            if "x-penstock-id" not in response.headers:
                self.on_stranger()
        refused = response.extensions.get("penstock")
        return reply_of(
            line,
            response.status_code,
            dict(response.headers),
            body if self._api_key is None else self._api_key.hidden_in(body),
            refused if isinstance(refused, Refused) else None,
            wall_now=time.time(),
            misdirected=response.extensions.get(MISDIRECTED, ""),
        )

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _trace(self, event: str, _info: object) -> None:
        """Follow httpx's and httpcore's documented "trace" extension."""
        if event in ("connection.connect_tcp.failed", "connection.start_tls.failed"):
            self.on_connection(False)
        elif event.endswith(".receive_response_headers.complete"):
            self.on_connection(True)

    def _keys(self, line: BatchLine) -> dict[str, str]:
        key = None if self._api_key is None else self._api_key.reveal()
        if line.endpoint.vendor is Vendor.ANTHROPIC:
            version = {"anthropic-version": "2023-06-01"}
            return version if key is None else {"x-api-key": key, **version}
        return {} if key is None else {"authorization": f"Bearer {key}"}


def _address(base_url: str) -> str:
    """Return where a base URL leads, without the name and password that may stand in it."""
    try:
        parts = urlsplit(base_url)
        port = "" if parts.port is None else f":{parts.port}"
        found = f"{parts.scheme}://{parts.hostname}{port}"
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:  # a port that is no number, half an IPv6 address
        usable = False
    if not usable:
        raise BatchError(
            f"base URL {base_url!r}: must be an http:// or https:// URL with a host, such as "
            "http://127.0.0.1:8787/v1; was the scheme forgotten?"
        )
    try:
        refuse_endpoint_in(base_url)
    except ValueError as error:
        raise BatchError(f"base URL {base_url!r}: {error}") from None
    return found


def _hints(traffic_class: str | None, tenant: str | None) -> dict[str, str]:
    named = {CLASS_HEADER: traffic_class, TENANT_HEADER: tenant}
    hints = {name: value for name, value in named.items() if value is not None}
    try:
        hints_of((name.encode(), value.encode()) for name, value in hints.items())
    except HintError as error:
        raise BatchError(f"{error}") from None
    return hints


async def _body(response: Any) -> bytes:
    """Return an answer's body without its encoding.

    Raises:
        EncodingError: it is too long, or not encoded as its header says.

    """
    if response.is_stream_consumed:  # made in this process
        content: bytes = response.content
        return content
    pieces: list[bytes] = []
    length = 0
    async for piece in response.aiter_raw():
        pieces.append(piece)
        length += len(piece)
        if length > MOST_REPLY_BYTES:
            raise EncodingError(
                f"the reply is more than {MOST_REPLY_BYTES} bytes long", too_large=True
            )
    encoding = response.headers.get("content-encoding", "")
    return unpacked(b"".join(pieces), encoding, at_most_bytes=MOST_REPLY_BYTES)
