"""Which of the vendors' endpoints a path is."""

from dataclasses import dataclass
from enum import StrEnum


class Vendor(StrEnum):
    """Whose error shape and usage fields apply."""

    OPENAI = "openai"
    ANTHROPIC = "anthropic"


class Kind(StrEnum):
    """What a call asks for."""

    CHAT = "chat"
    COMPLETIONS = "completions"
    RESPONSES = "responses"
    EMBEDDINGS = "embeddings"
    MESSAGES = "messages"
    MODELS = "models"


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of the vendors' endpoints.

    Attributes:
        vendor: whose it is.
        kind: what it does.
        path: as the vendor documents it.
        scheduled: False where a call costs nothing worth scheduling.

    """

    vendor: Vendor
    kind: Kind
    path: str
    scheduled: bool = True


ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint(Vendor.OPENAI, Kind.CHAT, "/v1/chat/completions"),
    Endpoint(Vendor.OPENAI, Kind.COMPLETIONS, "/v1/completions"),
    Endpoint(Vendor.OPENAI, Kind.RESPONSES, "/v1/responses"),
    Endpoint(Vendor.OPENAI, Kind.EMBEDDINGS, "/v1/embeddings"),
    Endpoint(Vendor.ANTHROPIC, Kind.MESSAGES, "/v1/messages"),
    Endpoint(Vendor.OPENAI, Kind.MODELS, "/v1/models", scheduled=False),
)
_EXACT = {endpoint.path: endpoint for endpoint in ENDPOINTS}
# Longest first: "/chat/completions" must not be taken for "/completions".
_TAILS = sorted(
    ((endpoint.path.removeprefix("/v1"), endpoint) for endpoint in ENDPOINTS),
    key=lambda pair: -len(pair[0]),
)


def endpoint_of(path: str) -> Endpoint | None:
    """Return the endpoint with exactly this path, or None. For a server's own routes."""
    return _EXACT.get(path)


def endpoint_like(path: str) -> Endpoint | None:
    """Return the endpoint whose path ends so, or None.

    For a client's requests, which may go to any base URL: Azure's
    "/openai/deployments/NAME/chat/completions" is a chat completion too.
    """
    path = path.rstrip("/")
    for tail, endpoint in _TAILS:
        if path.endswith(tail):
            return endpoint
    return None
