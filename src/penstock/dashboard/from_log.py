"""The page's data from a decision log."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from penstock.core.events import Action
from penstock.core.snapshot import Snapshot
from penstock.core.waiting import QueuePosition, WaitingGroup
from penstock.dashboard.state import DashboardState
from penstock.log.explain import RequestHistory, story_of
from penstock.log.reader import LogError, read_log


class LogSource:
    """A log's last run, as at its end.

    Raises:
        FileNotFoundError: there is no such log.
        LogError: it cannot be read, or nothing happened in it.

    """

    live = False

    def __init__(self, path: Path) -> None:
        """Read the log once; one request's story is read anew when somebody asks."""
        self._path = path
        self._now = 0.0
        state: DashboardState | None = None
        for record in read_log(path):
            header, what, now = record.header, record.what, record.now
            if state is None or state.run != header.run:
                wall = header.started_unix_s + now - header.started_at
                state = DashboardState(header.run, now=now, wall=wall, whole=True)
            self._now = now
            if isinstance(what, Action):
                state.action(now, what)
            else:
                state.event(now, what)
        if state is None:
            raise LogError(f"{path} has a header and nothing else: has no request come yet?")
        self.state = state

    def now(self) -> float:
        """Return when the log ends."""
        return self._now

    def snapshot(self) -> Snapshot | None:
        """Return None: a log has no scheduler."""
        return None

    def held(self) -> Sequence[WaitingGroup] | None:
        """Return None: a log says what a request waited for when it is sent, not before."""
        return None

    def place(self, number: int) -> QueuePosition | None:
        """Return None, as nothing goes on in a log."""
        return None

    def whatif(self) -> Mapping[str, Any] | None:
        """Return None: `penstock whatif` asks a log."""
        return None

    def fallbacks(self) -> Mapping[tuple[str, ...], float]:
        """Return nothing: a log has a request that went on as two."""
        return {}

    def turned_away(self) -> Mapping[tuple[str, str], float]:
        """Return nothing: what was never scheduled is in no log."""
        return {}

    def story(self, public_id: str) -> RequestHistory | None:
        """Return one request's story."""
        return story_of(read_log(self._path), public_id, now=self._now)
