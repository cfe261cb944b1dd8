"""The mock's ASGI application: paths, keys, bodies; the rest is in `serving`."""

from collections.abc import Mapping
from typing import Any

import orjson

from penstock.sim.mock.anthropic_messages import Messages
from penstock.sim.mock.call import BodyError, Endpoint
from penstock.sim.mock.embeddings import Embeddings
from penstock.sim.mock.faults import read_fault
from penstock.sim.mock.http import (
    STATS_PATH,
    BodyTooLargeError,
    ClientLeftError,
    Exchange,
    Message,
    Receive,
    Send,
    read_body,
)
from penstock.sim.mock.live import LiveProvider
from penstock.sim.mock.openai_chat import ChatCompletions
from penstock.sim.mock.openai_completions import Completions
from penstock.sim.mock.openai_responses import Responses
from penstock.sim.mock.serving import Serving, client_error, plan_reply
from penstock.sim.mock.settings import MockSettings
from penstock.sim.mock.stats import MockStats
from penstock.sim.mock.words import seed_of
from penstock.sim.providers.registry import build_provider

_ENDPOINTS: dict[str, Endpoint] = {
    "/v1/chat/completions": ChatCompletions(),
    "/v1/completions": Completions(),
    "/v1/responses": Responses(),
    "/v1/embeddings": Embeddings(),
    "/v1/messages": Messages(),
}
_DEFAULT_MODELS = ("mock-model",)


class MockApp:
    """One black-box provider as an ASGI application.

    Raises:
        ConfigError: the provider's table cannot be used; raised at once, not at the first call.

    """

    def __init__(self, settings: MockSettings) -> None:
        self._settings = settings
        self._provider = build_provider(settings.provider, seed=settings.seed)
        self._live: LiveProvider | None = None
        self._stats = MockStats()
        self._number = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one connection's call."""
        if scope["type"] == "lifespan":
            await _lifespan(receive, send)
            return
        exchange = Exchange(scope, receive, send, self._stats)
        self._number += 1
        exchange.request_id = f"req_mock{self._number:08d}"
        seen = self._stats.requests
        seen[exchange.path] = seen.get(exchange.path, 0) + 1
        try:
            await self._route(exchange)
        except ClientLeftError:
            self._stats.cancelled += 1
        finally:
            exchange.leave()

    @property
    def live(self) -> LiveProvider:
        """The provider on the loop that serves; it starts with the first call."""
        if self._live is None:
            self._live = LiveProvider(self._provider, tick_s=self._settings.tick_s)
        return self._live

    async def _route(self, exchange: Exchange) -> None:
        endpoint = _ENDPOINTS.get(exchange.path)
        vendor = endpoint.vendor if endpoint else _vendor_of(exchange.headers)
        if exchange.path == STATS_PATH:
            await exchange.answer_json(200, self._stats_document())
        elif not self._key_is_good(exchange.headers):
            await self._fail(exchange, vendor, 401, "Incorrect or missing API key.")
        elif endpoint is not None and exchange.method == "POST":
            await self._call(exchange, endpoint)
        elif exchange.path.startswith("/v1/models") and exchange.method == "GET":
            await self._models(exchange, vendor)
        elif endpoint is not None:
            await self._fail(exchange, vendor, 405, f"Not allowed: {exchange.method}")
        else:
            message = f"Unknown request URL: {exchange.method} {exchange.path}"
            await self._fail(exchange, vendor, 404, message)

    async def _call(self, exchange: Exchange, endpoint: Endpoint) -> None:
        vendor = endpoint.vendor
        try:
            raw = await read_body(exchange.receive, limit_bytes=self._settings.max_body_bytes)
            self._stats.bytes_in += len(raw)
            call = endpoint.read(_json_object(raw))
            if self._settings.models and call.model not in self._settings.models:
                message = f"The model `{call.model}` does not exist."
                await self._fail(exchange, vendor, 404, message, code="model_not_found")
                return
            fault = read_fault(exchange.headers.get("x-mock-fault", ""))
            reply = plan_reply(
                call,
                request_seed=seed_of(raw, self._settings.seed),
                asked_tokens=exchange.headers.get("x-mock-output-tokens"),
                number=self._number,
            )
        except BodyTooLargeError:
            await self._fail(exchange, vendor, 413, "The request body is too large.")
        except BodyError as error:
            await self._fail(exchange, vendor, 400, str(error), param=error.param)
        except ValueError as error:
            await self._fail(exchange, vendor, 400, str(error))
        else:
            await Serving(exchange, endpoint, self.live, self._stats).serve(call, reply, fault)

    async def _fail(
        self, exchange: Exchange, vendor: str, status: int, message: str, **more: Any
    ) -> None:
        self._stats.refuse(status)
        await exchange.answer_json(status, client_error(vendor, exchange, status, message, **more))

    async def _models(self, exchange: Exchange, vendor: str) -> None:
        names = self._settings.models or _DEFAULT_MODELS
        wanted = exchange.path.removeprefix("/v1/models").removeprefix("/")
        if not wanted:
            await exchange.answer_json(200, _model_list(vendor, names))
        elif wanted in names or not self._settings.models:
            await exchange.answer_json(200, _model(vendor, wanted))
        else:
            message = f"The model `{wanted}` does not exist."
            await self._fail(exchange, vendor, 404, message, code="model_not_found")

    def _key_is_good(self, headers: Mapping[str, str]) -> bool:
        keys = self._settings.api_keys
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        return not keys or bearer in keys or headers.get("x-api-key", "") in keys

    def _stats_document(self) -> dict[str, Any]:
        load = self.live.load()
        return self._stats.as_dict() | {
            "provider_active": load.active,
            "provider_queued": load.queued,
            "provider_peak_active": self.live.peak_active,
            "provider_peak_queued": self.live.peak_queued,
        }


def _vendor_of(headers: Mapping[str, str]) -> str:
    return "anthropic" if "anthropic-version" in headers else "openai"


def _json_object(raw: bytes) -> Mapping[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BodyError(f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(body, dict):
        raise BodyError("The body of your request must be a JSON object")
    return body


def _model(vendor: str, name: str) -> dict[str, Any]:
    if vendor == "anthropic":
        at = "2026-01-01T00:00:00Z"
        return {"type": "model", "id": name, "display_name": name, "created_at": at}
    return {"id": name, "object": "model", "created": 1767225600, "owned_by": "mock"}


def _model_list(vendor: str, names: tuple[str, ...]) -> dict[str, Any]:
    models = [_model(vendor, name) for name in names]
    if vendor == "anthropic":
        ends = {"first_id": names[0], "last_id": names[-1]}
        return {"data": models, "has_more": False} | ends
    return {"object": "list", "data": models}


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return
