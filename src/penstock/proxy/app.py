"""The ASGI application: pure ASGI, no middleware, so that a caller's going away is seen."""

import asyncio
import contextlib
import logging
import traceback
from collections.abc import Iterator

from penstock.calls.endpoint import BY_PATH, COUNT_TOKENS, Endpoint, endpoint_of
from penstock.listener import Receive, Scope, Send
from penstock.proxy.declined import Declined
from penstock.proxy.exchange import Exchange
from penstock.proxy.headers import Header, one
from penstock.proxy.listing import relay_count, relay_listing
from penstock.proxy.reply import send_answer, send_whole
from penstock.proxy.request_reader import Prepared
from penstock.proxy.sidecar import Sidecar
from penstock.wire.endpoint import Vendor
from penstock.wire.errors import error_answer

logger = logging.getLogger("penstock.proxy")

HEALTH = ("/health", "/healthz")


class App:
    """What callers talk to."""

    def __init__(self, sidecar: Sidecar) -> None:
        """Serve this sidecar."""
        self._sidecar = sidecar
        self._count = sidecar.metrics.requests.add

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            raise RuntimeError(f"ASGI scope {scope['type']!r} is not served: only http is")
        path: str = scope["path"]
        if path.endswith("/"):  # some clients put one there; the providers take it
            path = path[:-1]
            scope = {**scope, "path": path}
        if path in HEALTH and scope["method"] in ("GET", "HEAD"):
            await self._health(send)
            return
        endpoint = endpoint_of(path)
        try:
            if endpoint is None:
                raise Declined(404, "unknown_path", f"There is nothing at this path.{_HINT}")
            if scope["method"] != endpoint.method:
                raise Declined(
                    405,
                    "method_not_allowed",
                    f"{endpoint.path} takes {endpoint.method} only.",
                    headers={"allow": endpoint.method},
                )
            await self._serve(endpoint, scope, receive, send)
        except Declined as declined:
            vendor = endpoint.vendor if endpoint is not None else _vendor_of(scope["headers"])
            answer = error_answer(
                vendor, declined.status, declined.code, declined.message, headers=declined.headers
            )
            await send_answer(send, answer)
            self._count(endpoint.path if endpoint else "other", "", str(declined.status))
        except Exception as error:  # noqa: BLE001 - the last line of defence
            # Ours to mend. The text of an unknown exception may quote the body, so only its type
            # and the places it passed are logged.
            places = "".join(traceback.format_tb(error.__traceback__))
            logger.error("%s while serving %s\n%s", type(error).__name__, path, places)
            await self._apologise(endpoint, scope, send)

    async def _health(self, send: Send) -> None:
        """Say to a load balancer whether to send more here; a drain says no."""
        status, text = (503, b"draining\n") if self._sidecar.draining else (200, b"ok\n")
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send_whole(send, status, headers, text)

    async def _apologise(self, endpoint: Endpoint | None, scope: Scope, send: Send) -> None:
        self._count(endpoint.path if endpoint else "other", "", "500")
        vendor = endpoint.vendor if endpoint is not None else _vendor_of(scope["headers"])
        answer = error_answer(vendor, 500, "internal", "penstock failed; its log says where.")
        # Where the answer had begun there is nothing to say: the server cuts the connection.
        with contextlib.suppress(RuntimeError):
            await send_answer(send, answer)

    async def _serve(self, endpoint: Endpoint, scope: Scope, receive: Receive, send: Send) -> None:
        sidecar = self._sidecar
        if not endpoint.scheduled:
            if endpoint is COUNT_TOKENS:
                with self._gone_counted(endpoint), sidecar.room.held() as held:
                    model, body = await sidecar.reader.read(
                        endpoint, scope["headers"], receive, held
                    )
                relay = relay_count(sidecar, scope, model, body, send)
            else:
                relay = relay_listing(sidecar, scope, send)
            with self._gone_counted(endpoint):
                status = await relay
            self._count(endpoint.path, "", str(status))
            return
        with sidecar.room.held() as held:
            with self._gone_counted(endpoint):
                prepared = await sidecar.reader.prepare(endpoint, scope["headers"], receive, held)
            exchange = Exchange(sidecar, prepared, scope["headers"], scope["query_string"], send)
            arrived = sidecar.gate.driver.now()
            try:
                await exchange.run()
            finally:
                self._account(prepared, exchange, arrived)

    @contextlib.contextmanager
    def _gone_counted(self, endpoint: Endpoint) -> Iterator[None]:
        """Count a caller that goes away before its request is scheduled."""
        try:
            yield
        except asyncio.CancelledError:
            self._count(endpoint.path, "", "gone")
            raise

    def _account(self, prepared: Prepared, exchange: Exchange, arrived: float) -> None:
        metrics = self._sidecar.metrics
        name = prepared.spec.traffic_class or ""
        metrics.outcomes.add(name, exchange.outcome)
        self._count(prepared.endpoint.path, name, str(exchange.status or "gone"))
        if exchange.outcome == "completed":
            metrics.duration.add(self._sidecar.gate.driver.now() - arrived, name)


_HINT = " Penstock serves " + ", ".join(BY_PATH) + "."


def _vendor_of(headers: list[Header]) -> Vendor:
    return Vendor.ANTHROPIC if one(headers, b"anthropic-version") else Vendor.OPENAI
