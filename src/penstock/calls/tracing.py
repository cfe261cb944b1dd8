"""What traces of a request's life look like to their makers."""

from typing import Protocol

from penstock.core.events import Dispatch, Reject
from penstock.core.model import Request


class Trace(Protocol):
    """One request's trace. Unlike an observer it is told in the caller's own context."""

    def decided(self, word: Dispatch | Reject) -> None:
        """Note that it was dispatched or refused."""
        ...

    def first_token(self) -> None:
        """Note that the reply began."""
        ...

    def ended(self, result: str, output_tokens: int | None, prompt_tokens: int | None) -> None:
        """Note the end: "completed", "failed", "cancelled" or "refused". Called once."""
        ...


class Tracer(Protocol):
    """Begins traces."""

    def begin(
        self, public_id: str, request: Request, *, operation: str, vendor: str
    ) -> Trace | None:
        """Begin a trace as a child of the caller's; None if nobody records it.

        Args:
            public_id: as `penstock explain` takes it.
            request: as the scheduler sees it.
            operation: "chat", "text_completion", "embeddings"; empty if unknown.
            vendor: "openai", "anthropic"; empty if unknown.

        """
        ...
