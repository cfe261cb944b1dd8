"""The last decisions, kept for `/decisions` and `penstock explain`; no text, no keys."""

from collections import deque
from collections.abc import Iterable

from penstock.calls.facts import count_of
from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Event,
    Failed,
    Reject,
    WindowMoved,
)
from penstock.log.format import VERSION, line_of, veiled
from penstock.proxy.observe.metrics import Metrics
from penstock.wire import jsonio

Note = tuple[float, Event | Action]
_ENDS = (Completed, Cancelled)


class Recent:
    """Remembers what was decided about requests, and has it counted.

    All that wait or fly are remembered (their number is the scheduler's to bound), and of those
    that have ended the latest, up to a bound: what has waited longest is what people ask about.

    It speaks the decision log's format, so that whatever reads the log reads this. It passes
    decisions on to the metrics itself: a second observer would cost 4 us on every request.
    """

    def __init__(
        self,
        requests_kept: int,
        metrics: Metrics,
        *,
        run: str,
        started_at: float,
        wall_now: float,
    ) -> None:
        """Remember nothing yet."""
        self._kept = requests_kept
        self._count = metrics.action
        self._run = run
        self._header = jsonio.dumps(
            {
                "penstock_decision_log": VERSION,
                "run": run,
                "started_unix_s": wall_now,
                "started_at": started_at,
                "settings": None,
            }
        )
        self._by_id: dict[int, list[Note]] = {}
        self._ended: dict[int, None] = {}  # in the order of their ends
        self._moves: deque[Note] = deque(maxlen=requests_kept)

    def event(self, now: float, event: Event) -> None:
        """Note an event about a request; wake-ups and limits are nobody's."""
        if type(event) is Arrived:
            if not self._kept:
                return
            self._by_id[event.request.id] = [(now, event)]
            return
        id_ = getattr(event, "request_id", None)
        notes = self._by_id.get(id_) if id_ is not None else None
        if notes is not None:
            notes.append((now, event))
            if isinstance(event, _ENDS) or (isinstance(event, Failed) and not event.retryable):
                self._end(event.request_id)

    def action(self, now: float, action: Action) -> None:
        """Note an action."""
        self._count(now, action)
        if isinstance(action, WindowMoved):
            self._moves.append((now, action))
            return
        notes = self._by_id.get(action.request.id)
        if notes is not None:
            notes.append((now, action))
            if type(action) is Reject:
                self._end(action.request.id)

    def _end(self, id_: int) -> None:
        self._ended[id_] = None
        if len(self._ended) > self._kept:
            oldest = next(iter(self._ended))
            del self._ended[oldest], self._by_id[oldest]

    def of(self, public_id: str) -> bytes | None:
        """Return one request's lines; None if nothing is kept of it."""
        run, _, number = public_id.rpartition("-")
        count = count_of(number)
        if run != self._run or count is None:
            return None
        notes = self._by_id.get(count)
        return None if notes is None else self._lines([notes])

    def latest(self, limit: int) -> bytes:
        """Return the lines of the newest requests, newest request first."""
        newest = list(reversed(self._by_id.values()))[:limit]
        return self._lines(newest)

    def window_moves(self) -> bytes:
        """Return the lines of the latest moves of the windows, oldest first."""
        return self._lines([list(self._moves)])

    def _lines(self, stories: Iterable[list[Note]]) -> bytes:
        lines = [self._header]
        for notes in stories:
            for now, what in notes:
                shown = Arrived(veiled(what.request)) if type(what) is Arrived else what
                lines.append(jsonio.dumps(line_of(now, shown, None)))
        return b"\n".join(lines) + b"\n"
