"""No overload control: everything is admitted."""

from penstock.core.policy import Admit, Verdict
from penstock.core.signals import Signals
from penstock.core.ticket import Ticket

ADMIT = Admit()


class AlwaysAdmit:
    """Admits every request; only queue limits and time-to-live refuse.

    Source:
        The control of the paper's overload comparison.

    """

    def judge(self, ticket: Ticket, signals: Signals, *, now: float) -> Verdict:
        """Admit the request, whatever the severity."""
        return ADMIT
