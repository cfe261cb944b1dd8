"""Sends one line of a batch."""

import time
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlsplit

from penstock.batch.lines import BatchError, Line
from penstock.calls.hints import CLASS_HEADER, DEADLINE_HEADER, TENANT_HEADER
from penstock.core.events import RefusalCause
from penstock.errors import Refused
from penstock.integrations.program import Penstock
from penstock.wire import jsonio
from penstock.wire.endpoint import Vendor
from penstock.wire.refusal import Backoff, Meaning, Relay, meaning_of
from penstock.wire.usage import usage_of_object
from penstock.wire.waits import retry_after_s

MAX_WAIT_S = 60.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back.

    Attributes:
        status: HTTP status.
        request_id: the provider's, for its support.
        body: parsed; the text if it is no JSON.
        prompt_tokens, output_tokens: as reported; None if they were not.
        retry_after_s: the wish that came with a refusal.
        draining: True if our own gate was closed: the line was not sent.
        final: True if the provider will never take this line, whatever its status says.
        blocked: why no other line can succeed either (key refused, account spent); else empty.

    """

    status: int
    request_id: str = ""
    body: Any = None
    prompt_tokens: int | None = None
    output_tokens: int | None = None
    retry_after_s: float | None = None
    draining: bool = False
    final: bool = False
    blocked: str = ""


class Unreachable(Exception):
    """No answer came: the connection failed or broke, or time ran out.

    Attributes:
        away: True if there was no connection at all, which is no line's own fault.

    """

    def __init__(self, problem: str, *, away: bool = False) -> None:
        """Say what happened."""
        super().__init__(problem)
        self.away = away


class Send(Protocol):
    """Sends a line."""

    async def __call__(self, line: Line, *, deadline_s: float | None) -> Reply:
        """Send it and return the answer.

        Raises:
            Unreachable: there is none.

        """
        ...


class HttpSend:
    """Sends through penstock's transport to one base URL.

    Args:
        base_url: as SDKs take it, with or without "/v1" at its end.
        api_key: sent as the vendor wants it; nothing if None.
        penstock: schedules the calls.
        traffic_class, tenant: passed on to a sidecar; None sends no such hint.
        timeout_s: longest silence of the provider.

    """

    def __init__(
        self,
        base_url: str,
        api_key: str | None,
        penstock: Penstock,
        *,
        traffic_class: str | None = None,
        tenant: str | None = None,
        timeout_s: float = 600.0,
    ) -> None:
        """Open no connection yet.

        Raises:
            BatchError: the base URL is none.

        """
        import httpx2

        if urlsplit(base_url).scheme not in ("http", "https") or not urlsplit(base_url).hostname:
            raise BatchError(
                f"base URL {base_url!r}: must be an http:// or https:// URL with a host, such as "
                "http://127.0.0.1:8787/v1; was the scheme forgotten?"
            )
        self._error: type[Exception] = httpx2.TransportError
        self._away = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.ProxyError)
        self._base_url = base_url.rstrip("/").removesuffix("/v1")
        self._api_key = api_key
        hints = {CLASS_HEADER: traffic_class, TENANT_HEADER: tenant}
        self._hints = {name: value for name, value in hints.items() if value is not None}
        self._client = penstock.async_client(library="httpx2", timeout=timeout_s)

    async def __call__(self, line: Line, *, deadline_s: float | None) -> Reply:
        """Send a line and return the answer.

        Raises:
            Unreachable: there is none.

        """
        headers = {"content-type": "application/json", **self._hints, **self._keys(line)}
        if deadline_s is not None:
            headers[DEADLINE_HEADER] = f"{max(deadline_s, 0.001) * 1000:.0f}"
        try:
            response = await self._client.post(
                self._base_url + line.endpoint.path,
                content=jsonio.dumps(line.body),
                headers=headers,
            )
        except self._error as error:
            away = isinstance(error, self._away)
            raise Unreachable(f"{type(error).__name__}: {error}"[:200], away=away) from error
        return _reply(line, response)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    def _keys(self, line: Line) -> dict[str, str]:
        if line.endpoint.vendor is Vendor.ANTHROPIC:
            version = {"anthropic-version": "2023-06-01"}
            return version if self._api_key is None else {"x-api-key": self._api_key, **version}
        return {} if self._api_key is None else {"authorization": f"Bearer {self._api_key}"}


def _reply(line: Line, response: Any) -> Reply:
    refused = response.extensions.get("penstock")
    parsed = jsonio.loads_object(response.content)
    meaning = _meaning(response)
    usage = usage_of_object(line.endpoint.kind, parsed or {})
    return Reply(
        response.status_code,
        response.headers.get("x-request-id") or response.headers.get("request-id") or "",
        parsed if parsed is not None else response.text,
        usage.prompt_tokens,
        usage.output_tokens,
        retry_after_s(response.headers, wall_now=time.time()),
        draining=isinstance(refused, Refused) and refused.reason == "draining",
        final=isinstance(meaning, Relay) and meaning.for_good,
        blocked=_blocked(response.status_code, meaning, refused),
    )


def _blocked(status: int, meaning: Meaning, refused: object) -> str:
    if status == 401:
        return "the API key is refused (HTTP 401): is it set, and meant for this base URL?"
    spent = isinstance(refused, Refused) and refused.reason == "quota"
    if spent or (isinstance(meaning, Backoff) and meaning.cause is RefusalCause.QUOTA):
        return f"the account is spent (HTTP {status}): is there a limit or a bill to look after?"
    return ""


def _meaning(response: Any) -> Meaning:
    """Return what the answer means, whatever SDKs were told of trying again."""
    headers = {name: word for name, word in response.headers.items() if name != "x-should-retry"}
    return meaning_of(response.status_code, headers, response.content, wall_now=time.time())
