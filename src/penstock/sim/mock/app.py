"""The mock's ASGI application: paths, keys, bodies; the rest is in `serving`."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, cast

import orjson
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, Router

from penstock.asgi import Receive, Scope, Send
from penstock.sim.mock.answers import ClientError, error_body, json_response
from penstock.sim.mock.anthropic_messages import Messages
from penstock.sim.mock.call import BodyError, MockEndpoint
from penstock.sim.mock.openai_chat import ChatCompletions, Completions
from penstock.sim.mock.openai_responses import Responses
from penstock.sim.mock.passage import STATS_PATH, MockStats, Passage
from penstock.sim.mock.planning import plan_reply
from penstock.sim.mock.script import BrokenOnPurposeError, MockSettings, read_fault
from penstock.sim.mock.serving import KeptDocuments, LiveProvider, Serving
from penstock.sim.mock.unstreamed import (
    FILE,
    Embeddings,
    Images,
    KeptFiles,
    Moderations,
    Rerank,
    Speech,
    Transcriptions,
    model,
    model_list,
)
from penstock.sim.mock.words import seed_of_call
from penstock.sim.providers.registry import build_provider

if TYPE_CHECKING:
    from starlette import types

_CHAT, _RESPONSES, _MESSAGES = ChatCompletions(), Responses(), Messages()
_ENDPOINTS: dict[str, MockEndpoint] = {
    "/v1/chat/completions": _CHAT,
    "/v1/completions": Completions(),
    "/v1/responses": _RESPONSES,
    "/v1/embeddings": Embeddings(),
    "/v1/images/generations": Images(),
    "/v1/images/edits": Images(),
    "/v1/audio/speech": Speech(),
    "/v1/audio/transcriptions": Transcriptions(),
    "/v1/audio/translations": Transcriptions(),
    "/v1/moderations": Moderations(),
    "/v1/rerank": Rerank(),
    "/v1/messages": _MESSAGES,
}
_METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"]
"""Starlette takes no list for GET alone."""

Handler = Callable[[Request], Awaitable[Response]]


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
        self._kept = KeptDocuments()
        self._files = KeptFiles()
        self._number = 0
        self._router = Router(self._routes(), default=_asgi(self._answering(self._unknown)))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        self._number += 1
        passage = Passage(scope, send, self._stats, self._number)
        try:
            await self._router(scope, receive, cast("types.Send", passage.send))
        except BrokenOnPurposeError:
            self._stats.faults += 1
            passage.reset()
        except (asyncio.CancelledError, ClientDisconnect, ConnectionError):
            self._stats.cancelled += int(passage.inside)
            raise
        finally:
            passage.end()

    @property
    def live(self) -> LiveProvider:
        """The provider on the loop that serves; it starts with the first call."""
        if self._live is None:
            self._live = LiveProvider(self._provider, tick_s=self._settings.tick_s)
        return self._live

    def _routes(self) -> list[Route]:
        table: list[tuple[str, str, Handler]] = [
            ("POST", path, self._call_of(endpoint)) for path, endpoint in _ENDPOINTS.items()
        ]
        table += [
            ("POST", "/v1/messages/count_tokens", self._count_message),
            ("POST", "/v1/responses/input_tokens", self._count_response),
            ("GET", "/v1/responses/{id}", self._kept.retrieve),
            ("DELETE", "/v1/responses/{id}", self._kept.delete),
            ("GET", "/v1/responses/{id}/input_items", self._kept.input_items),
            ("GET", "/v1/chat/completions/{id}", self._kept.retrieve),
            ("DELETE", "/v1/chat/completions/{id}", self._kept.delete),
            ("POST", "/v1/files", self._of_openai(self._files.upload)),
            ("GET", "/v1/files", self._of_openai(self._files.listing)),
            ("GET", "/v1/files/{id}", self._of_openai(self._files.retrieve)),
            ("GET", "/v1/files/{id}/content", self._of_openai(self._files.content)),
            ("DELETE", "/v1/files/{id}", self._of_openai(self._files.delete)),
            ("GET", "/v1/models", self._models),
            ("GET", "/v1/models/{name:path}", self._models),
        ]
        routes = [Route(path, self._answering(do), methods=[verb]) for verb, path, do in table]
        verbs: dict[str, list[str]] = {}
        for verb, path, _ in table:
            verbs.setdefault(path, []).append(verb)
        for path, allowed in verbs.items():
            is_list = path.startswith("/v1/models")
            do = self._unknown if is_list else _refusing(allowed)
            routes.append(Route(path, self._answering(do), methods=_METHODS))
        open_to_all = [("/health", _health), ("/healthz", _health), (STATS_PATH, self._seen)]
        return [*(Route(path, do, methods=["GET"]) for path, do in open_to_all), *routes]

    def _answering(self, handler: Handler) -> Handler:
        """Return the handler behind the check of keys, its mistakes answered."""

        async def answer(request: Request) -> Response:
            try:
                if not self._key_is_good(request.headers):
                    raise ClientError(401, "Incorrect or missing API key.")
                return await handler(request)
            except ClientError as error:
                self._stats.refuse(error.status)
                document = error_body(
                    _vendor_of(request),
                    error.status,
                    str(error),
                    request_id=Passage.of(request.scope).request_id,
                    **error.more,
                )
                return json_response(document, error.headers, status=error.status)

        return answer

    def _call_of(self, endpoint: MockEndpoint) -> Handler:
        async def handler(request: Request) -> Response:
            headers = request.headers
            is_form = headers.get("content-type", "").startswith("multipart/form-data")
            given = await _form(request) if is_form else await self._body(request)
            try:
                call = endpoint.read(_json_object(given) if isinstance(given, bytes) else given)
                self._must_be_served(call.model)
                self._must_be_kept(call.body.get("previous_response_id"))
                plan = plan_reply(
                    call,
                    request.url.path,
                    headers,
                    seed=seed_of_call(call.body, self._settings.seed),
                    script=self._settings.script,
                )
                fault = read_fault(headers.get("x-mock-fault", "") or plan.fault)
            except BodyError as error:
                raise ClientError(400, str(error), param=error.param) from error
            except ValueError as error:
                raise ClientError(400, str(error)) from error
            passage = Passage.of(request.scope)
            serving = Serving(passage, endpoint, self.live, self._stats, self._kept)
            return await serving.answer(plan.call, plan.reply, fault)

        return handler

    async def _body(self, request: Request) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > self._settings.max_body_bytes:
                raise ClientError(413, "The request body is too large.")
            parts.append(part)
        self._stats.bytes_in += size
        return b"".join(parts)

    def _must_be_served(self, model: str) -> None:
        if self._settings.models and model not in self._settings.models:
            raise ClientError(404, f"The model `{model}` does not exist.", code="model_not_found")

    def _must_be_kept(self, previous: object) -> None:
        if previous is not None and self._kept.get(str(previous)) is None:
            raise ClientError(
                400,
                f"Previous response with id '{previous}' not found.",
                code="previous_response_not_found",
                param="previous_response_id",
            )

    async def _count_message(self, request: Request) -> Response:
        return json_response({"input_tokens": await self._prompt_tokens(request, _MESSAGES)})

    async def _count_response(self, request: Request) -> Response:
        tokens = await self._prompt_tokens(request, _RESPONSES)
        return json_response({"object": "response.input_tokens", "input_tokens": tokens})

    async def _prompt_tokens(self, request: Request, endpoint: Messages | Responses) -> int:
        try:
            return endpoint.prompt_tokens(_json_object(await self._body(request)))
        except BodyError as error:
            raise ClientError(400, str(error), param=error.param) from error

    async def _models(self, request: Request) -> Response:
        vendor, wanted = _vendor_of(request), request.path_params.get("name", "")
        if not wanted:
            return json_response(model_list(vendor, self._settings.models))
        self._must_be_served(wanted)
        return json_response(model(vendor, wanted))

    def _of_openai(self, handler: Handler) -> Handler:
        async def answer(request: Request) -> Response:
            ours = _vendor_of(request) == "openai"
            return await (handler if ours else self._unknown)(request)

        return answer

    async def _unknown(self, request: Request) -> Response:
        raise ClientError(404, f"Unknown request URL: {request.method} {request.url.path}")

    def _key_is_good(self, headers: Mapping[str, str]) -> bool:
        keys = self._settings.api_keys
        bearer = headers.get("authorization", "").removeprefix("Bearer ")
        return not keys or bearer in keys or headers.get("x-api-key", "") in keys

    async def _seen(self, _request: Request) -> Response:
        load = self.live.load()
        return json_response(
            self._stats.as_dict()
            | {
                "provider_active": load.active,
                "provider_queued": load.queued,
                "provider_peak_active": self.live.peak_active,
                "provider_peak_queued": self.live.peak_queued,
            }
        )


def _refusing(allowed: list[str]) -> Handler:
    async def handler(request: Request) -> Response:
        raise ClientError(405, f"Not allowed: {request.method}", allow=", ".join(allowed))

    return handler


async def _health(_request: Request) -> Response:
    return json_response({"status": "ok"})


def _asgi(handler: Handler) -> Callable[[Scope, Receive, Send], Awaitable[None]]:
    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        response = await handler(Request(scope, receive))
        await response(scope, receive, cast("types.Send", send))

    return application


def _vendor_of(request: Request) -> str:
    endpoint = _ENDPOINTS.get(request.url.path)
    if endpoint is not None:
        return endpoint.vendor
    ours = request.url.path.startswith("/v1/messages") or "anthropic-version" in request.headers
    return "anthropic" if ours else "openai"


async def _form(request: Request) -> Mapping[str, Any]:
    """Return a form's fields; a number stays a text that says so, a file is only named as one."""
    async with request.form() as form:
        fields: dict[str, Any] = {
            name: value if isinstance(value, str) else FILE for name, value in form.items()
        }
    if fields.get("n", "").isdecimal():
        fields["n"] = int(fields["n"])
    return fields


def _json_object(raw: bytes) -> Mapping[str, Any]:
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise BodyError(f"We could not parse the JSON body of your request: {error}") from error
    if not isinstance(body, dict):
        raise BodyError("The body of your request must be a JSON object")
    return body
