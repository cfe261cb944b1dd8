"""Additive increase, multiplicative decrease on refusals and slow replies."""

from typing import Annotated

from penstock.core.events import RefusalCause
from penstock.core.policy import Reply
from penstock.core.rule import Rule
from penstock.core.ticket import Ticket
from penstock.policies.capacity.counting import Initial, Largest, MovingWindow

_Factor = Annotated[float, Rule(low=0, low_is_allowed=False, high=1, high_is_allowed=False)]
_Timeout = Annotated[float, Rule(low=0, low_is_allowed=False, infinite=True)]


class Aimd(MovingWindow):
    """One more per good reply while at least half the window is used; `backoff` times on a bad one.

    A reply is bad when it took longer than `timeout_s`, whatever its length: the policy does not
    know that long replies take long.

    Source:
        Chiu & Jain, Computer Networks and ISDN Systems 17(1), 1989; constants of AIMDLimit in
        Netflix's concurrency-limits, except that the window may fall to 1 (there: 20).

    """

    def __init__(
        self,
        *,
        initial: Initial = 20,
        backoff: _Factor = 0.9,
        timeout_s: _Timeout = 5.0,
        largest: Largest = 200,
    ) -> None:
        """Start at `initial`.

        Raises:
            ValueError: `largest` is below `initial`.

        """
        super().__init__(initial, largest)
        self._backoff = backoff
        self._timeout_s = timeout_s

    def on_reply(self, reply: Reply, *, now: float) -> None:
        """Grow on a quick reply, shrink on a slow one."""
        if reply.latency_s > self._timeout_s:
            self._shrink()
        elif reply.in_flight * 2 >= self.window:
            self._set(self.window + 1.0)

    def on_refusal(self, ticket: Ticket, cause: RefusalCause, *, now: float) -> None:
        """Shrink the window by the back-off factor."""
        self._shrink()

    def _shrink(self) -> None:
        self._set(self.window * self._backoff)
