"""A window that only counts requests, shared by the capacity policies that look at little else."""

from penstock.core.events import RefusalCause
from penstock.core.policy import Reply
from penstock.core.service_time import ServiceTime
from penstock.core.ticket import Ticket


class CountingWindow:
    """At most `window` requests in flight; subclasses say how replies move it."""

    window: float
    because = "reply"

    @property
    def evidence(self) -> dict[str, float]:
        """Return nothing: the reply's latency is in the log already."""
        return {}

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Say whether one more fits; one always may go."""
        return in_flight < self.window or in_flight < 1

    def on_dispatch(
        self, ticket: Ticket, service: ServiceTime, in_flight: int, *, now: float
    ) -> None:
        """Learn nothing."""

    def on_landing(self, ticket: Ticket, in_flight: int, *, now: float) -> None:
        """Learn nothing."""

    def on_first_token(self, ticket: Ticket, service: ServiceTime, *, now: float) -> None:
        """Learn nothing."""

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Learn nothing."""

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Learn nothing."""
