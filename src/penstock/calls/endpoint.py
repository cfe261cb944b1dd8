"""The API paths that penstock knows: one row each. A further path is a further row.

Families of paths are relayed beside the scheduler: they cost nothing worth a queue. A call of one
goes to the upstream that holds what it names, which ids tell: of files, responses, batches.
"""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import Literal

from penstock.core.model import TokenEstimate
from penstock.wire.endpoint import NOT_ONLY_JSON, Kind, Vendor

LEGACY_COMPLETION_CAP = 16
"""What OpenAI's /v1/completions assumes when `max_tokens` is missing."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One of the vendors' endpoints.

    Attributes:
        vendor: whose it is.
        kind: what it does.
        path: as the vendor documents it.
        method: what it is asked with.
        scheduled: False where a call costs nothing worth scheduling.
        cap_fields: the body's fields that cap the output tokens of a reply, the first that is
            there counts.
        default_cap: what the vendor caps a reply at that has no such field; None for nothing.
        prompts_field: the body's field that may hold several prompts, each of which is replied
            to; empty if none may.
        reply: what one unit of a reply costs, where that does not depend on a text's length; else
            None.
        unit: what such a reply is counted in: replies, images, seconds of sound that is spoken
            from a text, or seconds of sound that is heard in a file.
        default_model: what the vendor takes where a body names no model; empty if it wants one.
        tail: what follows a base URL that ends in /v1.
        predicted: whether replies are text, whose length can be learnt.

    """

    vendor: Vendor
    kind: Kind
    path: str
    method: str = "POST"
    scheduled: bool = True
    cap_fields: tuple[str, ...] = ()
    default_cap: int | None = None
    prompts_field: str = ""
    reply: TokenEstimate | None = None
    unit: Literal["reply", "image", "spoken_s", "heard_s"] = "reply"
    default_model: str = ""
    tail: str = field(init=False)
    predicted: bool = field(init=False)

    def __post_init__(self) -> None:
        """Work out once what every call asks for."""
        object.__setattr__(self, "tail", self.path.removeprefix("/v1"))
        object.__setattr__(self, "predicted", self.scheduled and self.reply is None)

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that it takes: whoever has GET has HEAD (RFC 9110, section 9.1)."""
        return READING if self.method == "GET" else (self.method,)

    @property
    def answers_json(self) -> bool:
        """Whether a whole reply is a JSON object; else it may be sound or bare text as well."""
        return self.kind not in NOT_ONLY_JSON

    @property
    def streams(self) -> bool:
        """Whether a reply may come as a stream."""
        return self.predicted or self.unit != "reply"


_NO_TEXT = TokenEstimate(1.0, 1.0, "endpoint")
"""No output tokens at all; 1 is the least that an estimate can say."""
_IMAGE = TokenEstimate(1056.0, 4160.0, "endpoint")
"""GPT Image takes 1,056 output tokens for a square image of medium quality, 4,160 for a high one
(developers.openai.com/api/docs/guides/image-generation, "Cost and latency")."""
_SPOKEN_SECOND = TokenEstimate(21.0, 30.0, "endpoint")
"""1,250 output tokens a minute: what gpt-4o-mini-tts is charged at, by OpenAI's two price lists."""
_HEARD_SECOND = TokenEstimate(3.0, 6.0, "endpoint")
"""Of 150 English words a minute, with 1.3 tokens each; twice that for fast speech and JSON."""

CHAT = Endpoint(
    Vendor.OPENAI,
    Kind.CHAT,
    "/v1/chat/completions",
    cap_fields=("max_completion_tokens", "max_tokens"),
)
COMPLETIONS = Endpoint(
    Vendor.OPENAI,
    Kind.COMPLETIONS,
    "/v1/completions",
    cap_fields=("max_tokens",),
    default_cap=LEGACY_COMPLETION_CAP,
    prompts_field="prompt",
)
RESPONSES = Endpoint(
    Vendor.OPENAI, Kind.RESPONSES, "/v1/responses", cap_fields=("max_output_tokens",)
)
EMBEDDINGS = Endpoint(Vendor.OPENAI, Kind.EMBEDDINGS, "/v1/embeddings", reply=_NO_TEXT)
MESSAGES = Endpoint(Vendor.ANTHROPIC, Kind.MESSAGES, "/v1/messages", cap_fields=("max_tokens",))
IMAGES = Endpoint(
    Vendor.OPENAI,
    Kind.IMAGES,
    "/v1/images/generations",
    reply=_IMAGE,
    unit="image",
    default_model="dall-e-2",
)
IMAGE_EDITS = replace(IMAGES, kind=Kind.IMAGE_EDITS, path="/v1/images/edits")
TRANSCRIPTIONS = Endpoint(
    Vendor.OPENAI,
    Kind.TRANSCRIPTIONS,
    "/v1/audio/transcriptions",
    reply=_HEARD_SECOND,
    unit="heard_s",
)
TRANSLATIONS = replace(TRANSCRIPTIONS, kind=Kind.TRANSLATIONS, path="/v1/audio/translations")
SPEECH = Endpoint(
    Vendor.OPENAI,
    Kind.SPEECH,
    "/v1/audio/speech",
    reply=_SPOKEN_SECOND,
    unit="spoken_s",
)
MODERATIONS = Endpoint(
    Vendor.OPENAI,
    Kind.MODERATIONS,
    "/v1/moderations",
    reply=_NO_TEXT,
    default_model="omni-moderation-latest",
)
RERANK = Endpoint(Vendor.OPENAI, Kind.RERANK, "/v1/rerank", reply=_NO_TEXT)
COUNT_TOKENS = Endpoint(
    Vendor.ANTHROPIC, Kind.COUNT_TOKENS, "/v1/messages/count_tokens", scheduled=False
)
MODELS = Endpoint(Vendor.OPENAI, Kind.MODELS, "/v1/models", method="GET", scheduled=False)

ENDPOINTS = (
    CHAT,
    COMPLETIONS,
    RESPONSES,
    EMBEDDINGS,
    MESSAGES,
    IMAGES,
    IMAGE_EDITS,
    TRANSCRIPTIONS,
    TRANSLATIONS,
    SPEECH,
    MODERATIONS,
    RERANK,
    MODELS,
    COUNT_TOKENS,
)
BY_PATH = {endpoint.path: endpoint for endpoint in ENDPOINTS}
BY_KIND: dict[str, Endpoint] = {endpoint.kind: endpoint for endpoint in ENDPOINTS}
# Longest first: "/chat/completions" must not be taken for "/completions".
_SLASHES = re.compile(r"//+")
_NAMES_MODEL = re.compile(
    r"/publishers/anthropic/models/(?!count-tokens:)([^/]+):(?:r|streamR)awPredict\Z"
    r"|/openai/deployments/([^/]+)/"
)
"""Paths that name a model, as the body need not: Anthropic's API at Vertex AI; Azure's."""
_KEPT = "/threads/"
"""What OpenAI's Assistants keep under it is called messages too."""
_BY_TAIL = sorted(ENDPOINTS, key=lambda endpoint: -len(endpoint.tail))


def endpoint_of(path: str) -> Endpoint | None:
    """Return the endpoint with exactly this path, or None. For a server's own paths.

    One model's page belongs to the list of models.
    """
    if path.startswith("/v1/models/"):
        return MODELS
    return BY_PATH.get(path)


def without_odd_slashes(path: str) -> str:
    """Return a path without doubled slashes and one at its end.

    A base URL that ends in one, and a path that begins with one, make two.
    """
    return _SLASHES.sub("/", path).rstrip("/") or "/"


@lru_cache(maxsize=256)  # a program calls the same few
def endpoint_like(path: str) -> Endpoint | None:
    """Return the endpoint whose path ends so, or None.

    For a client's requests, which may go to any base URL: Azure's
    "/openai/deployments/NAME/chat/completions" is a chat completion too.
    """
    path = without_odd_slashes(path)
    named = _NAMES_MODEL.search(path)
    if named is not None and named[1]:
        return MESSAGES
    for endpoint in _BY_TAIL:
        if path.endswith(endpoint.tail) and _KEPT not in path:
            return endpoint
    return None


_NO_BASES = ("/chat/completions", "/completions", "/embeddings", "/responses", "/messages")
"""What no base URL ends with. Not /models: that of Azure AI model inference does."""


def refuse_endpoint_in(base_url: str) -> None:
    """Refuse what the provider would answer with 404, whatever is asked of it.

    Raises:
        ValueError: a base URL ends with what is added to it.

    """
    given = base_url.partition("?")[0].rstrip("/")
    for tail in _NO_BASES:
        if given.endswith(tail):
            meant = given.removesuffix(tail)
            raise ValueError(f"must not hold {tail}, which is added to it: did you mean {meant}?")


@lru_cache(maxsize=256)
def model_in(path: str) -> str:
    """Return the model that a client's path names; empty if it names none."""
    named = _NAMES_MODEL.search(path)
    return "" if named is None else named[1] or named[2]


@dataclass(frozen=True, slots=True)
class Family:
    """Paths with one beginning.

    Attributes:
        path: the beginning; the path itself and all under it belong to it.
        vendor: whose it is; None where both have it, and the caller's headers tell.

    """

    path: str
    vendor: Vendor | None


READING = ("GET", "HEAD")
OF_FAMILIES = (*READING, "POST", "DELETE")
"""What the paths of a family take."""

FAMILIES = (
    Family("/v1/responses", Vendor.OPENAI),
    Family("/v1/conversations", Vendor.OPENAI),
    Family("/v1/chat/completions", Vendor.OPENAI),
    Family("/v1/files", None),
    Family("/v1/uploads", Vendor.OPENAI),
    Family("/v1/batches", Vendor.OPENAI),
    Family("/v1/vector_stores", Vendor.OPENAI),
    Family("/v1/containers", Vendor.OPENAI),
    Family("/v1/messages/batches", Vendor.ANTHROPIC),
)

NEVER = ("/v1/organization", "/v1/organizations", "/v1/projects")
"""The vendors' administration: keys, users, spending. No caller's call belongs there."""


def family_of(path: str) -> Family | None:
    """Return the family of a path from /v1 on, or None."""
    for family in FAMILIES:
        if under(path, family.path):
            return family
    return None


def under(path: str, beginning: str) -> bool:
    """Return whether a path is this one or stands below it."""
    return path == beginning or path.startswith(beginning + "/")
