"""The ASGI application: pure ASGI, no middleware, so that a caller's going away is seen."""

import asyncio
import contextlib
import logging
import traceback
from itertools import chain

from penstock.asgi import Receive, Scope, Send
from penstock.calls.endpoint import READING, without_odd_slashes
from penstock.calls.hints import IGNORED_HEADER, PROGRESS_HEADER, ignored_of, told_of
from penstock.proxy.bodies import Held
from penstock.proxy.declined import Declined, check_method
from penstock.proxy.exchange import Exchange
from penstock.proxy.fallback import FallingBack
from penstock.proxy.fallback_legs import fitting, tier_of
from penstock.proxy.headers import Header, one, saying, send_answer, send_whole
from penstock.proxy.progress import progress_of
from penstock.proxy.relay import UnscheduledRelay, unknown_path, vendor_of
from penstock.proxy.replays import digest_of
from penstock.proxy.request_reader import Prepared
from penstock.proxy.routing import Route, route_of
from penstock.proxy.sidecar import Sidecar
from penstock.runtime.accounts import account_of
from penstock.wire.endpoint import Vendor
from penstock.wire.errors import error_answer

logger = logging.getLogger("penstock.proxy")

HEALTH = ("/health", "/healthz")
_OF_NOTHING = ("*", "/")
"""What load balancers ask by OPTIONS, HAProxy's by default."""


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
        method, path = scope["method"], scope["path"]
        known = path in HEALTH or (method != "POST" and without_odd_slashes(path) in HEALTH)
        if (known and method in READING) or (method == "OPTIONS" and path in _OF_NOTHING):
            await self._health(send)
            return
        route = None if known else route_of(scope["raw_path"].decode("latin-1"))
        if ignored := ignored_of(scope["headers"]):
            self._sidecar.metrics.ignored_hints.add()
            send = saying(send, (IGNORED_HEADER, told_of(ignored).encode()))
        try:
            if known:
                check_method(method, path, READING)
            if method == "GET" and _wants_websocket(scope["headers"]):
                raise Declined(426, "websocket_not_served", _NO_WEBSOCKET, _UPGRADE)
            if route is None:
                raise unknown_path()
            await self._serve(route, scope, receive, send)
        except Declined as declined:
            answer = error_answer(
                _vendor(route, scope),
                declined.status,
                declined.code,
                declined.message,
                headers=declined.headers,
            )
            await send_answer(send, answer)
            self._count(_label(route), "", str(declined.status))
        except Exception as error:  # noqa: BLE001 - the last line of defence
            await self._apologise(error, route, scope, send)

    async def _health(self, send: Send) -> None:
        """Say to a load balancer whether to send more here; a drain says no."""
        status, text = (503, b"draining\n") if self._sidecar.draining else (200, b"ok\n")
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send_whole(send, status, headers, text)

    async def _apologise(
        self, error: Exception, route: Route | None, scope: Scope, send: Send
    ) -> None:
        """Log a fault of ours, and answer with a 500; a lack of memory passes, and is a 503.

        The text of an unknown exception may quote the body, so only its type and the places it
        passed are logged.
        """
        short = isinstance(error, MemoryError)
        places = "" if short else "\n" + "".join(traceback.format_tb(error.__traceback__))
        logger.error("%s while serving %s%s", type(error).__name__, scope["path"], places)
        told = (503, "out_of_memory", _NO_MEMORY) if short else (500, "internal", _FAILED)
        self._count(_label(route), "", str(told[0]))
        headers = {"retry-after": "1"} if short else {}
        answer = error_answer(_vendor(route, scope), *told, headers=headers)
        # Where the answer had begun there is nothing to say: the server cuts the connection.
        with contextlib.suppress(RuntimeError):
            await send_answer(send, answer)

    async def _serve(self, route: Route, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a call to a known path; what it holds of its body is given back in the end."""
        route = route.asked_by(scope["method"])
        sidecar, endpoint = self._sidecar, route.endpoint
        held = Held(sidecar.room, account_of(scope["headers"]))
        try:
            held.take(sum(map(len, chain.from_iterable(scope["headers"]))))
            if endpoint is None or not endpoint.scheduled:
                await self._relay(route, scope, receive, send, held)
                return
            if scope["method"] != endpoint.method:
                check_method(scope["method"], endpoint.path, endpoint.methods)
            headers: list[Header] = scope["headers"]
            try:
                prepared = await sidecar.reader.prepare(
                    endpoint, headers, receive, held, model=route.model
                )
            except asyncio.CancelledError:
                self._count(endpoint.path, "", "gone")
                raise
            key = prepared.head.get(b"idempotency-key")
            if key is not None and sidecar.replays.keep_s:
                await self._replay(key, prepared, route, scope, send, held)
                return
            query = scope["query_string"]
            word = prepared.head.get(PROGRESS_HEADER)
            if word is None:
                exchange = _exchange_of(sidecar, prepared, headers, query, send)
                await self._run(exchange, prepared, headers)
                return
            progress = progress_of(word, prepared, send)
            exchange = _exchange_of(sidecar, prepared, headers, query, progress.send)
            async with progress.speaking(exchange.told):
                await self._run(exchange, prepared, headers)
        finally:
            held.give_back()

    async def _relay(
        self, route: Route, scope: Scope, receive: Receive, send: Send, held: Held
    ) -> None:
        """Answer a call beside the scheduler."""
        sidecar, label = self._sidecar, _label(route)
        sidecar.relayed += 1
        try:
            status = await UnscheduledRelay(sidecar, route, scope, send).run(receive, held)
        except asyncio.CancelledError:
            self._count(label, "", "gone")
            raise
        finally:
            sidecar.relayed -= 1
        self._count(label, "", str(status))

    async def _run(
        self, exchange: Exchange | FallingBack, prepared: Prepared, headers: list[Header]
    ) -> None:
        """Let the request wait for its slot, and relay its answer."""
        now, metrics = self._sidecar.driver.now, self._sidecar.metrics
        arrived = now()
        telemetry = self._sidecar.telemetry
        callers = None if telemetry is None else telemetry.enter(headers)
        try:
            await exchange.run()
        finally:
            name, outcome = prepared.spec.traffic_class or "", exchange.outcome
            metrics.outcomes.add(name, outcome)
            self._count(prepared.endpoint.path, name, str(exchange.status or "gone"))
            if outcome == "completed":
                metrics.duration.add(now() - arrived, name)
            if telemetry is not None and callers is not None:
                telemetry.leave(callers)

    async def _replay(
        self,
        key: bytes,
        prepared: Prepared,
        route: Route,
        scope: Scope,
        send: Send,
        held: Held,
    ) -> None:
        """Answer a call that has a key: as it was answered before, or as the one under way is."""
        replays, headers, query = self._sidecar.replays, scope["headers"], scope["query_string"]
        owner = held.account.encode()
        digest = digest_of(scope["raw_path"], query, prepared.body.plain)
        word = prepared.head.get(PROGRESS_HEADER)
        progress = None if word is None else progress_of(word, prepared, send)
        replay = replays.find(owner, key, digest)
        again = replay is not None
        if replay is None:
            replay = replays.add(owner, key, digest)
            exchange = _exchange_of(self._sidecar, prepared, headers, query, replay.take)
            replay.told = exchange.told
            kept = held.handed_over()  # until the call has ended, whoever leaves

            async def call() -> None:
                try:
                    await self._run(exchange, prepared, headers)
                except Exception as error:  # noqa: BLE001 - perhaps nobody listens any more
                    await self._apologise(error, route, scope, replay.take)
                finally:
                    kept.give_back()

            replays.start(owner, key, call())
        try:
            if progress is None:
                await replay.play(send, again=again)
            else:
                async with progress.speaking(replay.told):
                    await replay.play(progress.send, again=again)
        except asyncio.CancelledError:
            self._count(prepared.endpoint.path, "", "gone")
            raise
        if again:
            self._count(prepared.endpoint.path, prepared.spec.traffic_class or "", "replayed")


_FAILED = "penstock failed; its log says where."
_NO_MEMORY = (
    "There is no memory left for this call: send it again in a while. A lower "
    "server.max_held_bytes would refuse it before it is read."
)
_NO_WEBSOCKET = (
    "Penstock does not relay WebSockets: one would hold a slot for its whole life, and what each "
    "of its turns costs cannot be seen. Send POST /v1/responses with stream: true instead, or "
    "connect to the provider directly for /v1/realtime."
)
_UPGRADE = {"upgrade": "HTTP/1.1", "connection": "upgrade"}
"""Codex goes on with POST at once after a 426; after a 501 it asked for seven sockets, 6.5 s."""


def _wants_websocket(headers: list[Header]) -> bool:
    return (one(headers, b"upgrade") or b"").lower() == b"websocket"


def _exchange_of(
    sidecar: Sidecar, prepared: Prepared, headers: list[Header], query: bytes, send: Send
) -> Exchange | FallingBack:
    """Return who relays a request: most have nowhere else to go, and pay nothing for it."""
    rules = sidecar.fallbacks
    tier = tier_of(prepared) if rules else None
    prepared.spec.body = None  # it is read: 1 to 10 times the bytes of the body, which are kept
    if tier is None or not prepared.may_fall_back or prepared.refers:
        return Exchange(sidecar, prepared, headers, query, send)
    if any(True for _ in fitting(rules, prepared.facts.model, tier)):
        return FallingBack(sidecar, prepared, headers, query, send, tier)
    return Exchange(sidecar, prepared, headers, query, send)


def _label(route: Route | None) -> str:
    """Return the path as metrics name it: callers choose paths, so only known ones are told."""
    if route is None:
        return "other"
    known = route.endpoint or route.family
    return known.path if known is not None else "other"


def _vendor(route: Route | None, scope: Scope) -> Vendor:
    """Return whose error shape the caller understands."""
    if route is not None and route.vendor is not None:
        return route.vendor
    return vendor_of(scope["headers"])
