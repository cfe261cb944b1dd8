"""What those that trace requests look like to their makers."""

from collections.abc import Mapping
from typing import Protocol

from penstock.calls.spec import RequestSpec
from penstock.core.events import Action, Event
from penstock.core.model import Request


class Tracer(Protocol):
    """An observer that is also told of each request in its caller's own context.

    Context variables, such as the caller's current span, are read in `begin`; events and actions
    may come from any thread.
    """

    def begin(self, public_id: str, request: Request, spec: RequestSpec) -> None:
        """Learn of a request that is about to be submitted.

        Args:
            public_id: as `penstock explain` takes it.
            request: as the scheduler sees it.
            spec: in the caller's words; nothing of it may be kept.

        """
        ...

    def headers(self, request_id: int, host: str, port: int | None) -> Mapping[str, str]:
        """Return the headers that carry the trace to the provider; none if nobody traces.

        Args:
            request_id: of a request that was dispatched.
            host: the provider's; empty if unknown.
            port: likewise; None if unknown.

        """
        ...

    def event(self, now: float, event: Event) -> None:
        """Take note of an event, before the scheduler handles it."""
        ...

    def action(self, now: float, action: Action) -> None:
        """Take note of an action, before it is carried out."""
        ...
