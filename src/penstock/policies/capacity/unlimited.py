"""No window: everything is sent at once."""

import math

from penstock.core.events import RefusalCause
from penstock.core.policy import Reply
from penstock.core.service_time import ServiceTime
from penstock.core.ticket import Ticket


class Unlimited:
    """What a program without penstock does; the "direct" row of every table.

    Source:
        The baseline.

    """

    window = math.inf

    def has_room(self, ticket: Ticket | None, in_flight: int, tokens: float, *, now: float) -> bool:
        """Say yes."""
        return True

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
