"""What all endpoints have in common: the call as read from the body, and its reply."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


class BodyError(Exception):
    """A body that the vendor would answer with 400; `param` names the culprit."""

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.param = param


@dataclass(frozen=True, slots=True)
class MockCall:
    """One call as an endpoint understood it.

    Attributes:
        max_tokens: the caller's cap on each reply, or None.
        replies: how many replies are asked for (`n`).
        tool: name and JSON schema of the tool that the reply shall call, or None for text.
        schema: JSON schema that the text shall fit, or None for words.
        reply_tokens: a length that the endpoint fixes itself (0 for embeddings), or None.
        thinks: whether a thinking block shall go before the reply.

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
    thinks: bool = False
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class StatedUsage:
    """What the usage shall say, whatever the reply is; None where it says what is so."""

    prompt_tokens: int | None = None
    output_tokens: int | None = None
    cached_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class MockReply:
    """What will be answered.

    Attributes:
        id: for the ids of the reply and its parts; the same request has the same.
        pieces: the text of one reply, cut into its tokens; their concatenation is the text.
        cut: True if the cap ended it.
        cached_tokens: how many of the prompt's tokens the provider had in its cache.
        thinking: the text of a thinking block that goes before; empty for none.
        stated: what the usage shall say.

    """

    id: str
    pieces: list[str]
    cut: bool
    cached_tokens: int = 0
    thinking: str = ""
    stated: StatedUsage = field(default_factory=StatedUsage)

    @property
    def tokens(self) -> int:
        """How many tokens one reply has, its thinking not counted."""
        return len(self.pieces)

    @property
    def lead_tokens(self) -> int:
        """How many tokens go before the reply's first: those of its thinking."""
        return len(self.thinking.split())

    @property
    def text(self) -> str:
        """The whole text of one reply."""
        return "".join(self.pieces)

    def counts(self, call: MockCall) -> tuple[int, int, int]:
        """Return what the usage says: tokens of the prompt, of it cached, and of all replies."""
        stated = self.stated
        output = (self.lead_tokens + self.tokens) * call.replies
        return (
            call.prompt_tokens if stated.prompt_tokens is None else stated.prompt_tokens,
            self.cached_tokens if stated.cached_tokens is None else stated.cached_tokens,
            output if stated.output_tokens is None else stated.output_tokens,
        )


CREATED_UNIX_S = 1_767_225_600
"""When every reply was made, as it says: a clock would keep replies from repeating to the byte."""


class MockEndpoint(ABC):
    """One vendor API call: how its body is read and how its answer is written."""

    vendor = "openai"

    @abstractmethod
    def read(self, body: Mapping[str, Any]) -> MockCall:
        """Return the call, or raise BodyError."""

    @abstractmethod
    def whole(self, call: MockCall, reply: MockReply) -> dict[str, Any] | bytes:
        """Return the answer to a call without streaming: JSON, or sound."""

    def opening(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return the SSE events before the first token; none where there is no stream."""
        return []

    def delta(self, call: MockCall, reply: MockReply, choice: int, pieces: list[str]) -> bytes:
        """Return the SSE event that carries these tokens of this choice's text; likewise."""
        return b""

    def closing(self, call: MockCall, reply: MockReply) -> list[bytes]:
        """Return the SSE events after the last token; likewise."""
        return []

    def kept_input(self, call: MockCall) -> list[Any] | None:
        """Return the input's items of a call whose reply is kept; None if it is not kept."""
        return None
