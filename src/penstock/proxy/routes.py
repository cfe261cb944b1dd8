"""The paths that the sidecar serves. Whatever is not here is refused."""

from dataclasses import dataclass

from penstock.wire.endpoint import ENDPOINTS, Kind, Vendor


@dataclass(frozen=True, slots=True)
class Route:
    """One path.

    Attributes:
        path: as callers ask for it; a bounded set, so it may label metrics.
        tail: what follows the upstream's base URL.
        vendor: whose error shape its callers understand, and which upstreams speak it.
        kind: what it asks for.
        scheduled: False for what costs the provider nothing (lists of models, token counts).

    """

    path: str
    tail: bytes
    vendor: Vendor
    kind: Kind
    scheduled: bool = True

    @property
    def method(self) -> str:
        """The only method accepted."""
        return "GET" if self.kind is Kind.MODELS else "POST"

    @property
    def streams(self) -> bool:
        """Whether replies have output tokens, and may come as a stream."""
        return self.kind is not Kind.EMBEDDINGS

    @property
    def prompt_field(self) -> str:
        """The body's field that holds the prompt."""
        return _PROMPT_FIELDS.get(self.kind, "messages")


_PROMPT_FIELDS = {Kind.COMPLETIONS: "prompt", Kind.RESPONSES: "input", Kind.EMBEDDINGS: "input"}

ROUTES = {
    e.path: Route(e.path, e.path.removeprefix("/v1").encode(), e.vendor, e.kind, e.scheduled)
    for e in ENDPOINTS
}
MODELS = ROUTES["/v1/models"]
COUNT = Route(
    "/v1/messages/count_tokens",
    b"/messages/count_tokens",
    Vendor.ANTHROPIC,
    Kind.MESSAGES,
    scheduled=False,
)
ROUTES[COUNT.path] = COUNT


def find(path: str) -> Route | None:
    """Return the route for a path, or None; one model's page belongs to the list of models."""
    route = ROUTES.get(path)
    if route is None and path.startswith("/v1/models/"):
        return MODELS
    return route
