"""A heap of deadlines by request id, cheap to cancel."""

import heapq
import math


class Timers:
    """At most one due time per request; O(log n) to set, O(1) to cancel.

    Cancelled entries leave the heap when they surface, or all at once when they are the
    majority: a request that ends early must not hold memory until its time-to-live is over.
    """

    def __init__(self) -> None:
        """Start empty."""
        self.earliest = math.inf
        """Nothing is due before; something cancelled may stand here still."""
        self._due: dict[int, float] = {}
        self._heap: list[tuple[float, int]] = []

    def set(self, request_id: int, at: float) -> None:
        """Make the request due at `at`, instead of whatever was set before."""
        self._due[request_id] = at
        heapq.heappush(self._heap, (at, request_id))
        if at < self.earliest:
            self.earliest = at

    def cancel(self, request_id: int) -> bool:
        """Forget the request; return whether it was set."""
        if self._due.pop(request_id, None) is None:
            return False
        if len(self._heap) > 2 * len(self._due) + 64:
            self._heap = [(at, id_) for id_, at in self._due.items()]
            heapq.heapify(self._heap)
        return True

    def due_at(self, request_id: int) -> float | None:
        """Return when the request is due, or None if it is not set."""
        return self._due.get(request_id)

    def next_at(self) -> float:
        """Return the earliest due time, inf if none."""
        heap, due = self._heap, self._due
        while heap:
            at, id_ = heap[0]
            if due.get(id_) == at:
                self.earliest = at
                return at
            heapq.heappop(heap)
        self.earliest = math.inf
        return math.inf

    def pop_due(self, *, now: float) -> list[int]:
        """Remove and return all ids due by `now`, in order of time, then id."""
        ids: list[int] = []
        if self.earliest > now:
            return ids
        while self.next_at() <= now:
            _, id_ = heapq.heappop(self._heap)
            del self._due[id_]
            ids.append(id_)
        return ids

    def __contains__(self, request_id: int) -> bool:
        """Return whether the request is set."""
        return request_id in self._due

    def __len__(self) -> int:
        """Return how many are set."""
        return len(self._due)
