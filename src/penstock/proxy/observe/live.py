"""What the sidecar tells of itself: to the dashboard, its log of outages, OpenTelemetry.

The last decisions are kept for `/decisions` and `penstock explain`; no text, no keys.
"""

import asyncio
import logging
import os
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

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
from penstock.core.snapshot import QueuePosition, Snapshot, WaitingGroup
from penstock.dashboard.state import DashboardState
from penstock.errors import ConfigError
from penstock.log.explain import RequestHistory, story_of
from penstock.log.format import VERSION, line_of, veiled
from penstock.log.reader import parse_log
from penstock.proxy.config.models import Otel
from penstock.proxy.observe.metrics import Metrics
from penstock.proxy.shadow import Shadow
from penstock.runtime.driver import Driver
from penstock.telemetry.wanted import exporters
from penstock.wire import jsonio

if TYPE_CHECKING:
    from penstock.telemetry.pipeline import Pipeline


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


logger = logging.getLogger("penstock.proxy")

LOOK_S = 1.0
OUT_S = 5.0
"""Shorter pauses are everyday life; callers hardly notice them."""


class Outages:
    """Looks at the upstreams' pauses now and then."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        """Nothing has been said yet."""
        self._snapshot = snapshot
        self._told: dict[str, str] = {}

    async def keep_looking(self) -> None:
        """Look every `LOOK_S`, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Log what has changed since the last look."""
        state = self._snapshot()
        for name, upstream in state.upstreams.items():
            longest = max(upstream.open, key=lambda pause: pause.until, default=None)
            told = self._told.get(name)
            if longest is None:
                if told is not None and not upstream.probation:
                    del self._told[name]
                    logger.info("upstream %s is used again", name)
                continue
            left_s = longest.until - state.now
            if told != longest.cause and left_s >= OUT_S:
                self._told[name] = longest.cause
                logger.warning(
                    "upstream %s is out (%s): the next attempt in %.0f s; "
                    "`penstock lift %s` tries it at once",
                    name,
                    longest.cause,
                    left_s,
                    name,
                )


def pipeline_of(table: Otel) -> "Pipeline | None":
    """Return what exports; None, with nothing imported, if nobody asks for it.

    Raises:
        ConfigError: it cannot, because a package is missing or a variable is wrong.

    """
    asked = exporters(os.environ, enabled=table.enabled)
    if not asked:
        return None
    try:
        from penstock.telemetry.pipeline import Pipeline
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"OpenTelemetry is asked for (otel.enabled, or OTEL_* variables), and {error.name} is "
            "not installed: pip install 'penstock[otel]', or set otel.enabled = false"
        ) from None
    return Pipeline(asked, "penstock")


@dataclass
class LiveSource:
    """What goes on now."""

    state: DashboardState
    _driver: Driver
    _recent: Recent
    _shadow: Shadow
    _metrics: Metrics
    live: bool = True

    def now(self) -> float:
        """Return the driver's time."""
        return self._driver.now()

    def snapshot(self) -> Snapshot | None:
        """Return the scheduler's state."""
        found = self._driver.snapshot()
        assert isinstance(found, Snapshot)
        return found

    def held(self) -> Sequence[WaitingGroup] | None:
        """Return what waits."""
        return self._driver.held()

    def place(self, number: int) -> QueuePosition | None:
        """Return where a request stands."""
        return self._driver.place(number)

    def whatif(self) -> Mapping[str, Any] | None:
        """Return the shadow's latest answer."""
        return self._shadow.shown()

    def fallbacks(self) -> Mapping[tuple[str, ...], float]:
        """Return how many went on elsewhere since the start."""
        return self._metrics.fallbacks.counts

    def turned_away(self) -> Mapping[tuple[str, str], float]:
        """Return how many have had an error since the start and were never scheduled."""
        return {
            (path, status): count
            for (path, name, status), count in self._metrics.requests.counts.items()
            if not name and status >= "400" and status.isdigit()
        }

    def story(self, public_id: str) -> RequestHistory | None:
        """Return one request's story, of those that the sidecar remembers."""
        lines = self._recent.of(public_id)
        if lines is None:
            return None
        return story_of(parse_log(lines), public_id, now=self.now())
