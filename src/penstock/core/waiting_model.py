"""Does a provider queue what is too much for it, or does it share itself among all?"""

import math
from collections import deque

from penstock.core.flight_log import Flight, FlightLog

KEEP, LEAST_LATE = 16, 4
CLEAR = 0.8
"""The worse model's error must be at least so much above the better one's to count ..."""
TIE = 0.02
"""... and by so much in absolute terms: one too many looks the same to both."""
MOST_ERROR = 1.0
VOTE_WEIGHT, SURE = 0.25, 0.7


_Seen = tuple[Flight, float, float, float, int, int]
"""A reply: its flight, how many flew beside it on average, service time and latency in seconds,
and the capacity by either model, 0 if it did not wait. A tuple, as each reply makes one."""


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
        service_s: float,
        latency_s: float,
        queue: float = 0.0,
        sharing: float = 0.0,
    ) -> None:
        """Take in a reply.

        Args:
            flight: its flight.
            mean_n: how many flew beside it, itself included.
            service_s: its time in service, in seconds.
            latency_s: all the time that it took.
            queue: if it waited, the capacity of a queue.
            sharing: if it waited, the capacity of a provider that shares.

        """
        self._seen.append((flight, mean_n, service_s, latency_s, int(queue), int(sharing)))

    def compare(self, log: FlightLog) -> None:
        """Let the model vote that explains the replies clearly better."""
        late = [(queue, sharing) for *_, queue, sharing in self._seen if queue]
        if len(late) < LEAST_LATE:
            return
        queue = min(self._queue_error(c, log) for c in {queue for queue, _ in late})
        sharing = min(self._sharing_error(c) for c in {sharing for _, sharing in late})
        if min(queue, sharing) <= CLEAR * max(queue, sharing) and abs(queue - sharing) > TIE:
            self.vote(sharing < queue)

    def _queue_error(self, places: int, log: FlightLog) -> float:
        total = 0.0
        for flight, _, service_s, latency_s, _, _ in self._seen:
            before = flight.in_flight - places
            waited_s = log.time_of_reply(flight.sent_at, before) if before > 0 else 0.0
            total += _error(waited_s + service_s, latency_s)
        return total

    def _sharing_error(self, places: int) -> float:
        return sum(
            _error(service_s * max(1.0, mean_n / places), latency_s)
            for _, mean_n, service_s, latency_s, _, _ in self._seen
        )

    def restart(self) -> None:
        """Forget the replies; what it does remains."""
        self._seen.clear()


def _error(predicted_s: float, latency_s: float) -> float:
    return min(MOST_ERROR, math.log(predicted_s / latency_s) ** 2)
