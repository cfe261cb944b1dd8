"""Hooks for every event, and what traces of a request's life look like to their makers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from penstock.core.events import Action, Dispatch, Event, Reject
from penstock.core.model import Request


@dataclass(frozen=True, slots=True)
class Hooks:
    """Plain functions as an observer; they run on the caller's path, so keep them short.

    Attributes:
        on_event: called with (now, event) before the scheduler is told.
        on_action: called with (now, action) before it is carried out.

    """

    on_event: Callable[[float, Event], object] | None = None
    on_action: Callable[[float, Action], object] | None = None

    def event(self, now: float, event: Event) -> None:
        """Pass an event on."""
        if self.on_event is not None:
            self.on_event(now, event)

    def action(self, now: float, action: Action) -> None:
        """Pass an action on."""
        if self.on_action is not None:
            self.on_action(now, action)


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
