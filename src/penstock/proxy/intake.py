"""From an HTTP request to what the gate wants to know; every bad request ends here."""

import asyncio
import math
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from penstock.core.model import bucket_of
from penstock.proxy.call import Call, parse
from penstock.proxy.callers import Callers, hints_of
from penstock.proxy.declined import Declined
from penstock.proxy.estimating import Estimated, Estimator
from penstock.proxy.headers import Header, credential, one
from penstock.proxy.listening import Patience, Receive
from penstock.proxy.routes import Route
from penstock.proxy.routing import Routing
from penstock.runtime.spec import RequestSpec

Scope = MutableMapping[str, Any]


class CallerGone(Exception):
    """The caller went away while its body was being read."""


@dataclass(slots=True)
class Prepared:
    """A good request.

    Attributes:
        route: its path.
        call: the facts of its body.
        spec: what the gate is told.
        estimated: what it is charged, and what the predictor learns from.
        body: as the caller sent it.
        deadline_s: seconds from arrival; inf if none.

    """

    route: Route
    call: Call
    spec: RequestSpec
    estimated: Estimated
    body: bytes
    deadline_s: float


class Front:
    """Checks requests, from the cheapest test to the dearest."""

    def __init__(
        self,
        callers: Callers,
        routing: Routing,
        estimator: Estimator,
        *,
        max_body_bytes: int,
        body_timeout_s: float,
        ttl_s: dict[str, float],
    ) -> None:
        """Take what the checks need."""
        self._callers = callers
        self._routing = routing
        self._estimator = estimator
        self._max_body_bytes = max_body_bytes
        self._patience = Patience(body_timeout_s)
        self._ttl_s = ttl_s

    def authorise(self, headers: list[Header]) -> None:
        """Check the caller's key alone, for requests that are not scheduled.

        Raises:
            Declined: 401.

        """
        self._callers.identify(headers)

    async def read(
        self, route: Route, headers: list[Header], receive: Receive
    ) -> tuple[str, bytes]:
        """Return the model and the body of a request that is not scheduled.

        Raises:
            Declined: with the status that fits.
            CallerGone: nobody is left to answer.

        """
        self.authorise(headers)
        body = await self._body(headers, receive)
        return parse(route, body)[0].model, body

    async def prepare(self, route: Route, headers: list[Header], receive: Receive) -> Prepared:
        """Return the request, checked and estimated.

        Raises:
            Declined: with the status that fits.
            CallerGone: nobody is left to answer.

        """
        rights = self._callers.identify(headers)
        hints = hints_of(headers)
        _refuse_encoded(headers)
        body = await self._body(headers, receive)
        call, parsed = parse(route, body)
        target = self._routing.resolve(route.vendor, call.model)
        if target is None:
            raise Declined(
                404,
                "model_not_found",
                f"No upstream here serves the model {call.model!r} on {route.path}.",
            )
        if target.needs_caller_key and credential(headers) is None:
            raise Declined(
                401,
                "missing_api_key",
                "No API key was sent: put it into the Authorization or x-api-key header.",
            )
        certain = hints.traffic_class or rights.traffic_class
        estimated = self._estimator.estimate(
            route,
            call,
            parsed,
            traffic_class=certain,
            label=hints.route,
            stated=hints.tokens,
        )
        treatment = self._callers.treat(rights, hints, bucket_of(estimated.estimate.p50_tokens))
        spec = RequestSpec(
            traffic_class=treatment.traffic_class,
            deadline_s=treatment.deadline_s,
            expires_in_s=self._ttl_s.get(treatment.traffic_class, math.inf),
            tokens=estimated.estimate,
            prompt_tokens=estimated.prompt_tokens or call.prompt_tokens,
            tenant=treatment.tenant,
            model=target.name,
            session=treatment.session,
            route=estimated.route,
        )
        return Prepared(route, call, spec, estimated, body, treatment.deadline_s)

    async def _body(self, headers: list[Header], receive: Receive) -> bytes:
        stated = one(headers, b"content-length")
        # The server has checked its form: digits only.
        if stated is not None and int(stated) > self._max_body_bytes:
            raise self._too_large()
        task = asyncio.current_task()
        if task is None:
            raise RuntimeError("an ASGI application runs in a task: which server is this?")
        self._patience.begin(task)
        late = False
        try:
            message = await receive()
            if message["type"] == "http.request" and not message.get("more_body"):
                body: bytes = message["body"]
            else:
                body = await self._pieces(message, receive)
        except asyncio.CancelledError:
            late = self._patience.end(task)
            if not late:
                raise
            task.uncancel()
        finally:
            self._patience.end(task)
        if late:
            raise Declined(408, "body_timeout", "The request's body did not arrive in time.")
        if len(body) > self._max_body_bytes:
            raise self._too_large()
        return body

    async def _pieces(self, message: MutableMapping[str, Any], receive: Receive) -> bytes:
        pieces: list[bytes] = []
        size = 0
        while True:
            if message["type"] == "http.disconnect":
                raise CallerGone
            piece = message.get("body", b"")
            size += len(piece)
            if size > self._max_body_bytes:
                raise self._too_large()
            pieces.append(piece)
            if not message.get("more_body"):
                return b"".join(pieces)
            message = await receive()

    def _too_large(self) -> Declined:
        return Declined(
            413,
            "body_too_large",
            f"The request's body is larger than {self._max_body_bytes} bytes, "
            "which server.max_body_bytes allows.",
        )


def _refuse_encoded(headers: list[Header]) -> None:
    """Refuse compressed bodies: they would have to be unpacked to be read, and no provider asks."""
    encoding = one(headers, b"content-encoding")
    if encoding is not None and encoding.strip().lower() not in (b"", b"identity"):
        raise Declined(
            415,
            "encoding_not_taken",
            "Compressed request bodies are not taken: send the JSON as it is, without "
            "content-encoding (switch request compression off in the client or the gateway).",
        )
