"""The dashboard's data from the running sidecar."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.core.snapshot import Snapshot
from penstock.core.waiting import QueuePosition, WaitingGroup
from penstock.dashboard.state import DashboardState
from penstock.log.explain import RequestHistory, story_of
from penstock.log.reader import parse_log
from penstock.proxy.observe.metrics import Metrics
from penstock.proxy.observe.recent import Recent
from penstock.proxy.shadow import Shadow
from penstock.runtime.driver import Driver


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
