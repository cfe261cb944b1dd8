"""A ladder of severity thresholds, shared by the overload policies that differ only in them."""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.core.policy import Admit, DeferFor, Shed, Verdict
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket

NEVER = 2.0  # severity ends at 1
ADMIT = Admit()


@dataclass(frozen=True, slots=True)
class Ladder:
    """For each rung, the severities from which its requests are deferred and shed.

    Attributes:
        defer_at, shed_at: severity by rung (bucket); a rung that is absent is never deferred
            or shed.
        delay_s: the first deferral; each further one is twice as long.
        returns: how often a request may be deferred; after that it is admitted or shed.

    """

    defer_at: Mapping[str, float]
    shed_at: Mapping[str, float]
    delay_s: float = 0.5
    returns: int = 3

    def judge(self, ticket: Ticket, signals: Signals, *, now: float) -> Verdict:
        """Return what the rung's thresholds say at this severity."""
        severity = signals.severity
        if severity >= self.shed_at.get(ticket.rung, NEVER):
            return Shed("shed", self._retry_after_s(signals))
        if severity >= self.defer_at.get(ticket.rung, NEVER) and ticket.deferrals < self.returns:
            return DeferFor(self.delay_s * 2.0**ticket.deferrals, "overload")
        return ADMIT

    @staticmethod
    def _retry_after_s(signals: Signals) -> float:
        """Return when what waits now will have been served, within 1 to 60 s."""
        return min(60.0, max(1.0, signals.waiting_work_s / max(1.0, min(signals.window, 1e9))))
