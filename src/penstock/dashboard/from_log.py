"""The page's data from a decision log."""

from pathlib import Path

from penstock.core.events import Action
from penstock.dashboard.state import DashboardState
from penstock.dashboard.views import ViewSource
from penstock.log.explain import RequestHistory, story_of
from penstock.log.reader import LogError, read_log


class LogSource(ViewSource):
    """A log's last run, as at its end.

    Raises:
        FileNotFoundError: there is no such log.
        LogError: it cannot be read, or nothing happened in it.

    """

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

    def story(self, public_id: str) -> RequestHistory | None:
        """Return one request's story."""
        return story_of(read_log(self._path), public_id, now=self._now)
