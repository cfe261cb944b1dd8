"""What the dashboard knows, from events and actions alone: a log gives the same as a scheduler."""

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Defer,
    Dispatch,
    Event,
    Failed,
    Reject,
    Throttled,
    WindowMoved,
)
from penstock.core.model import Request
from penstock.dashboard.spans import Ended, Spans
from penstock.predict.online.stats import PredictorStats

LIVE_WIDTH_S, SPANS = 5.0, 720
"""An hour in spans of 5 s: a chart of 1,000 pixels shows no more."""
LATELY_S = 60.0
"""Rates are those of the last minute: it holds enough calls, and no load of an hour ago."""
MOVES_KEPT, REFUSALS_KEPT = 500, 200


@dataclass(slots=True)
class InHand:
    """A request that has not ended.

    Attributes:
        upstream: where it flies; empty while it waits.
        queued_s: seconds that it had waited at its last dispatch.
        waits: those seconds by cause.
        cause: what it had waited for longest by then.
        attempts: how often it was sent.

    """

    request: Request
    upstream: str = ""
    queued_s: float = 0.0
    waits: Mapping[str, float] = field(default_factory=dict)
    cause: str = ""
    attempts: int = 0


class DashboardState:
    """An observer of the driver, or of the records of a log.

    Args:
        run: the first part of the public ids.
        now: driver seconds at `wall`.
        wall: seconds since 1970.
        whole: keep everything since the start in ever wider spans; else the last hour.

    Attributes:
        in_hand: what waits or flies, by number.
        windows: each upstream's concurrency limit, from its first move on.
        moves, refusals: the latest moves of the windows and refusals, with their times.

    """

    def __init__(self, run: str, *, now: float, wall: float, whole: bool = False) -> None:
        """Know nothing yet."""
        self.run = run
        self.wall_offset_s = wall - now
        self.last_at = now
        width_s = 1.0 if whole else LIVE_WIDTH_S
        self.spans = Spans(now, width_s=width_s, kept=SPANS, whole=whole)
        self.in_hand: dict[int, InHand] = {}
        self.windows: dict[str, float] = {}
        self.moves: deque[tuple[float, WindowMoved]] = deque(maxlen=MOVES_KEPT)
        self.refusals: deque[tuple[float, Reject]] = deque(maxlen=REFUSALS_KEPT)
        self.predictions = PredictorStats()
        self.severity = 0.0

    def event(self, now: float, event: Event) -> None:
        """Take in an event."""
        self.last_at = now
        kind = type(event)
        if kind is Arrived:
            request = event.request  # type: ignore[union-attr]
            self.in_hand[request.id] = InHand(request)
            self.spans.at(now).arrived[request.traffic_class] += 1
        elif kind is Completed:
            self._completed(event, now)  # type: ignore[arg-type]
        elif kind is Cancelled:
            known = self.in_hand.get(event.request_id)  # type: ignore[union-attr]
            if known is not None and known.upstream:  # what waits, `Abandoned` ends
                self._end(event.request_id, "cancelled", now)  # type: ignore[union-attr]
        elif kind is Failed and not event.retryable:  # type: ignore[union-attr]
            self._end(event.request_id, "failed", now)  # type: ignore[union-attr]
        elif kind is Throttled or kind is Failed:
            known = self.in_hand.get(event.request_id)  # type: ignore[union-attr]
            if known is not None:
                known.upstream = ""

    def action(self, now: float, action: Action) -> None:
        """Take in an action."""
        if isinstance(action, WindowMoved):
            self.windows[action.upstream] = action.after
            self.moves.append((now, action))
            return
        why = action.why
        self.severity = why.severity
        span = self.spans.at(now)
        span.severity = max(span.severity, why.severity)
        if isinstance(action, Defer):
            return
        request = action.request
        name = request.traffic_class
        known = self.in_hand.get(request.id)
        if known is None:
            return
        for cause, seconds in why.waits.items():  # of all attempts: some may be counted already
            span.waits[name, cause] += seconds - known.waits.get(cause, 0.0)
        known.waits = why.waits
        known.queued_s = why.waited_s
        known.cause = why.longest_wait
        if isinstance(action, Dispatch):
            known.upstream = action.upstream
            known.attempts += 1
            span.sent[name] += 1
        elif isinstance(action, Reject):
            span.refused[name, action.reason, why.rung] += 1
            self.refusals.append((now, action))
            self._end(request.id, action.reason, now)
        else:
            self._end(request.id, "cancelled", now)

    def lately_s(self, now: float) -> float:
        """Return over how many seconds rates are counted."""
        return min(LATELY_S, max(1.0, now - self.spans.start))

    def sent_per_s(self, request: Request, now: float) -> float:
        """Return how many requests of this one's class were sent a second, lately."""
        sent = self.spans.since(now - LATELY_S).sent.get(request.traffic_class, 0)
        return sent / self.lately_s(now)

    def id_of(self, number: int) -> str:
        """Return a request's public id."""
        return f"{self.run}-{number}"

    def _completed(self, event: Completed, now: float) -> None:
        known = self.in_hand.get(event.request_id)
        if known is None:
            return
        request = known.request
        if event.output_tokens is not None and event.reported:
            self.predictions.settled(request.route, request.estimate, event.output_tokens)
        late = request.deadline < math.inf and now > request.deadline
        self._end(event.request_id, "late" if late else "completed", now)

    def _end(self, number: int, result: str, now: float) -> None:
        known = self.in_hand.pop(number, None)
        if known is None:
            return
        request = known.request
        latency_s = now - request.arrived_at
        queued_s = known.queued_s if known.attempts else latency_s
        ended = Ended(
            latency_s, queued_s, now, self.id_of(number), request.traffic_class, request.tenant,
            known.upstream, known.cause, result, known.attempts,
        )  # fmt: skip
        self.spans.at(now).end(ended)
