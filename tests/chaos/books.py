"""Keeps account of every request that a scheduler was told of: each ends exactly once."""

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Event,
    Failed,
    Reject,
    Throttled,
)


class Books:
    """An observer.

    Attributes:
        arrived: how many requests there were.
        wrong: what must not be, in words.

    """

    def __init__(self) -> None:
        self.arrived = 0
        self.wrong: list[str] = []
        self._open: set[int] = set()
        self._flying: set[int] = set()

    @property
    def open(self) -> int:
        """How many have not ended."""
        return len(self._open)

    def event(self, now: float, event: Event) -> None:
        match event:
            case Arrived(request):
                self.arrived += 1
                if request.id in self._open:
                    self.wrong.append(f"{request.id} arrived twice")
                self._open.add(request.id)
            case Completed(id_):
                self._land(id_, event)
                self._end(id_, event)
            case Throttled(id_) | Failed(id_):
                self._land(id_, event)
                if not event.retryable:
                    self._end(id_, event)
            case Cancelled(id_):  # allowed after the end too
                self._flying.discard(id_)
                self._open.discard(id_)

    def action(self, now: float, action: Action) -> None:
        if isinstance(action, Dispatch):
            if action.request.id in self._flying or action.request.id not in self._open:
                self.wrong.append(f"{action.request.id} was dispatched twice, or after its end")
            self._flying.add(action.request.id)
        elif isinstance(action, Reject):
            self._end(action.request.id, action)

    def _land(self, id_: int, event: object) -> None:
        if id_ not in self._flying:
            self.wrong.append(f"{id_} did not fly: {event}")
        self._flying.discard(id_)

    def _end(self, id_: int, how: object) -> None:
        if id_ not in self._open:
            self.wrong.append(f"{id_} ended twice: {how}")
        self._open.discard(id_)
