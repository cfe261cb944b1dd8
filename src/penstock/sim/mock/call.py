"""What all endpoints have in common: the call as read from the body, and its reply."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol


class BodyError(Exception):
    """A body that the vendor would answer with 400; `param` names the culprit."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class Call:
    """One call as an endpoint understood it.

    Attributes:
        max_tokens: the caller's cap on each reply, or None.
        replies: how many replies are asked for (`n`).
        tool: name and JSON schema of the tool that the reply shall call, or None for text.
        schema: JSON schema that the text shall fit, or None for words.
        reply_tokens: a length that the endpoint fixes itself (0 for embeddings), or None.

    """

    model: str
    prompt_tokens: int
    stream: bool = False
    include_usage: bool = False
    max_tokens: int | None = None
    replies: int = 1
    tool: tuple[str, Mapping[str, Any]] | None = None
    schema: Mapping[str, Any] | None = None
    reply_tokens: int | None = None
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Reply:
    """What will be answered.

    Attributes:
        number: unique in this mock, for ids.
        created: unix seconds.
        pieces: the text of one reply, cut into its tokens; their concatenation is the text.
        cut: True if the cap ended it.
        cached_tokens: how many of the prompt's tokens the provider had in its cache.

    """

    number: int
    created: int
    pieces: list[str]
    cut: bool
    cached_tokens: int = 0

    @property
    def tokens(self) -> int:
        """How many tokens one reply has."""
        return len(self.pieces)

    @property
    def text(self) -> str:
        """The whole text of one reply."""
        return "".join(self.pieces)


class Endpoint(Protocol):
    """One vendor API call: how its body is read and how its answer is written."""

    vendor: str

    def read(self, body: Mapping[str, Any]) -> Call:
        """Return the call, or raise BodyError."""
        ...

    def whole(self, call: Call, reply: Reply) -> dict[str, Any]:
        """Return the answer to a call without streaming."""
        ...

    def opening(self, call: Call, reply: Reply) -> list[bytes]:
        """Return the SSE events before the first token."""
        ...

    def delta(self, call: Call, reply: Reply, choice: int, text: str) -> bytes:
        """Return the SSE event that carries this piece of this choice's text."""
        ...

    def closing(self, call: Call, reply: Reply) -> list[bytes]:
        """Return the SSE events after the last token."""
        ...
