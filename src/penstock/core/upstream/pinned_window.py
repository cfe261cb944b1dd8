"""A window that an operator holds, above a policy that goes on learning."""

from dataclasses import dataclass, field

from penstock.core.events import RefusalCause
from penstock.core.policy import CapacityPolicy, Reply
from penstock.core.signals import ServiceTime
from penstock.core.ticket import Ticket


@dataclass(slots=True)
class PinnedWindow:
    """As many requests as an operator says; what comes back still teaches the policy below."""

    below: CapacityPolicy
    window: float
    because: str = "pin"
    evidence: dict[str, float] = field(default_factory=dict)

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Return whether one more fits."""
        return in_flight < self.window

    def on_dispatch(
        self, ticket: Ticket, service: ServiceTime, in_flight: int, *, now: float
    ) -> None:
        """Pass it on."""
        self.below.on_dispatch(ticket, service, in_flight, now=now)

    def on_landing(self, ticket: Ticket, in_flight: int, *, now: float) -> None:
        """Pass it on."""
        self.below.on_landing(ticket, in_flight, now=now)

    def on_first_token(self, ticket: Ticket, service: ServiceTime, *, now: float) -> None:
        """Pass it on."""
        self.below.on_first_token(ticket, service, now=now)

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Pass it on."""
        self.below.on_reply(reply, now=now)

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Pass it on."""
        self.below.on_refusal(ticket, cause, now=now)
