"""Does a provider queue what is too much for it, or does it share itself among all?"""

import math
from collections import deque
from dataclasses import dataclass

from penstock.core.flight_log import Flight, FlightLog

KEEP, LEAST_LATE = 16, 4
CLEAR = 0.8
"""The worse model's error must be at least so much above the better one's to count ..."""
TIE = 0.02
"""... and by so much in absolute terms: one too many looks the same to both."""
MOST_ERROR = 1.0
VOTE_WEIGHT, SURE = 0.25, 0.7


@dataclass(frozen=True, slots=True)
class _Seen:
    """A reply: its flight, how many flew beside it on average, and its times in seconds."""

    flight: Flight
    mean_n: float
    service_s: float
    latency_s: float
    late: bool
    queue: int
    sharing: int


class WaitingModel:
    """Says how many a provider serves at once, by the model that explains its replies better.

    A queue of c places lets the n-th in flight start when n - c of those before it have ended;
    a provider that shares c places among N serves each at c / N of its speed. For each model the
    capacity that explains the last replies best, the quiet ones too, is taken, and the model with
    the smaller error gets a vote.

    Attributes:
        sharing: smoothed votes: 0 is a queue, 1 a provider that shares.

    Source:
        Ours; least squares of the logarithms.

    """

    def __init__(self) -> None:
        """Start undecided."""
        self.sharing = 0.5
        self._seen: deque[_Seen] = deque(maxlen=KEEP)

    @property
    def is_sharing(self) -> bool:
        """Say whether the provider is known to share."""
        return self.sharing > SURE

    def vote(self, shares: bool) -> None:
        """Take in one more sign of what it does."""
        self.sharing += VOTE_WEIGHT * (float(shares) - self.sharing)

    def capacity(self, queue: float, sharing: float, window: float) -> float:
        """Return the estimate of the model that holds, undecided the larger one.

        One reply that a sharing provider made slow does not more than halve the window.
        """
        if self.is_sharing:
            return max(sharing, window // 2.0)
        return queue if self.sharing < 1.0 - SURE else max(queue, sharing)

    def saw(
        self,
        flight: Flight,
        mean_n: float,
        times_s: tuple[float, float],
        late: tuple[float, float] | None,
    ) -> None:
        """Take in a reply.

        Args:
            flight: its flight.
            mean_n: how many flew beside it, itself included.
            times_s: service time and latency.
            late: the capacity by either model if it waited.

        """
        queue, sharing = (int(each) for each in late or (0, 0))
        service_s, latency_s = times_s
        seen = _Seen(flight, mean_n, service_s, latency_s, late is not None, queue, sharing)
        self._seen.append(seen)

    def compare(self, log: FlightLog) -> None:
        """Let the model vote that explains the replies clearly better."""
        late = [each for each in self._seen if each.late]
        if len(late) < LEAST_LATE:
            return
        queue = min(self._queue_error(c, log) for c in {each.queue for each in late})
        sharing = min(self._sharing_error(c) for c in {each.sharing for each in late})
        if min(queue, sharing) <= CLEAR * max(queue, sharing) and abs(queue - sharing) > TIE:
            self.vote(sharing < queue)

    def _queue_error(self, places: int, log: FlightLog) -> float:
        total = 0.0
        for each in self._seen:
            before = each.flight.in_flight - places
            waited_s = log.time_of_reply(each.flight.sent_at, before) if before > 0 else 0.0
            total += _error(waited_s + each.service_s, each.latency_s)
        return total

    def _sharing_error(self, places: int) -> float:
        return sum(
            _error(each.service_s * max(1.0, each.mean_n / places), each.latency_s)
            for each in self._seen
        )

    def restart(self) -> None:
        """Forget the replies; what it does remains."""
        self._seen.clear()


def _error(predicted_s: float, latency_s: float) -> float:
    return min(MOST_ERROR, math.log(predicted_s / latency_s) ** 2)
