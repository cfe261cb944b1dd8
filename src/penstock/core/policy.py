"""What a policy must answer. A policy is told the time and never asks for it.

A policy that inherits from its protocol need not write what it does nothing at: each method with
no answer does nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from penstock.core.events import RefusalCause
from penstock.core.model import TrafficClass
from penstock.core.signals import ServiceTime, Signals
from penstock.core.ticket import Ticket


@dataclass(frozen=True, slots=True)
class Admit:
    """Let the request wait for its turn."""


@dataclass(frozen=True, slots=True)
class DeferFor:
    """Look at the request again after `delay_s`."""

    delay_s: float
    reason: str


@dataclass(frozen=True, slots=True)
class Shed:
    """Refuse the request; a new try makes sense after `retry_after_s`."""

    reason: str
    retry_after_s: float


Verdict = Admit | DeferFor | Shed


class OverloadPolicy(Protocol):
    """Judges a request when it arrives and whenever it comes back from a deferral."""

    def judge(self, ticket: Ticket, signals: Signals, *, now: float) -> Verdict:
        """Return the verdict; `ticket.deferrals` counts the returns so far."""
        ...


class OrderedQueue(Protocol):
    """The waiting requests of one class, in the order in which they should go.

    One that has become empty decides as a new one does.
    """

    def push(self, ticket: Ticket, *, now: float) -> None:
        """Take in a ticket; one that was here before gets its old place again."""
        ...

    def head(self, *, now: float) -> Ticket | None:
        """Return the ticket that should go next, or None when nothing waits."""
        ...

    def take(self, ticket: Ticket, *, now: float) -> None:
        """Remove a ticket: the head that was chosen, or one that was cancelled or expired."""
        ...

    def __len__(self) -> int:
        """Return how many wait."""
        ...


class Allocator(Protocol):
    """Chooses which traffic class sends next."""

    def choose(self, heads: Mapping[str, Ticket], signals: Signals, *, now: float) -> str | None:
        """Return the class to serve, or None to leave the room unused."""
        ...

    def charge(self, traffic_class: str, cost_tokens: float) -> None:
        """Take the predicted cost of a dispatched request from its class."""
        return

    def settle(self, traffic_class: str, excess_tokens: float) -> None:
        """Correct the charge once the real usage is known (real minus predicted)."""
        return

    def forget_debts(self) -> None:
        """Nothing waits any more: forget debts and credits."""
        return

    def take_classes(self, classes: tuple[TrafficClass, ...]) -> None:
        """Go by these classes from now on; what each may still spend stays."""
        return

    def deficit_tokens(self, traffic_class: str) -> float:
        """Return what the class may still spend, in output tokens; 0 where there is no account."""
        return 0.0


@dataclass(slots=True)
class Reply:
    """What one finished attempt taught.

    Attributes:
        output_tokens: real (or estimated) count, None if unknown.
        latency_s: from dispatch to the last token.
        first_token_s: from dispatch to the first token, nan if not streamed.
        in_flight: how many flew to this upstream at its dispatch, itself included.
        waiting: True if requests wait that could use more room: growth has a purpose.
        service: the upstream's fit for the request's model, this reply not yet in it.

    """

    ticket: Ticket
    output_tokens: int | None
    latency_s: float
    first_token_s: float
    in_flight: int
    waiting: bool
    service: ServiceTime


class CapacityPolicy(Protocol):
    """Decides how much may be in flight at one upstream."""

    @property
    def window(self) -> float:
        """How many requests may be in flight; inf for no limit."""
        ...

    @property
    def because(self) -> str:
        """What moved the window last, for `WindowMoved`."""
        ...

    @property
    def evidence(self) -> dict[str, float]:
        """The figures that this move stood on; a new object for each move."""
        ...

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Return whether one more fits beside `in_flight` requests of `tokens` predicted tokens.

        With None: whether anything at all could fit (a cheap first look).
        """
        ...

    def on_dispatch(
        self, ticket: Ticket, service: ServiceTime, in_flight: int, *, now: float
    ) -> None:
        """Note an attempt sent; `in_flight` includes it, `service` is its model's fit."""
        return

    def on_landing(self, ticket: Ticket, in_flight: int, *, now: float) -> None:
        """Note an attempt that no longer flies, however it ended; `in_flight` are left."""
        return

    def on_first_token(self, ticket: Ticket, service: ServiceTime, *, now: float) -> None:
        """Note the first token of a reply; `service` is the fit of its model."""
        return

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Learn from a complete reply."""
        return

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Learn from an attempt that was refused."""
        return
