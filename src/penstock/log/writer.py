"""Writes every event and every decision to a file, one JSON object a line.

No prompt and no key can get in: the core never sees them. The file is bounded (it rotates), and
so is the memory in front of it. The loop only appends to a queue (0.1 us); a thread of its own
writes, so a slow disk holds nobody up.
"""

import atexit
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Event,
    Failed,
    FirstToken,
    Reconfigured,
    Reject,
    Throttled,
)
from penstock.core.model import Request, bucket_of
from penstock.core.settings import Settings
from penstock.errors import PenstockError
from penstock.log.format import VERSION, LoggedOutcome, line_of, veiled
from penstock.log.log_file import LogFile
from penstock.wire import jsonio

logger = logging.getLogger("penstock.decision_log")

RETRY_S = 1.0
"""How often a file that cannot be written is tried again."""


class _OpenRequest:
    """What is remembered of a request until it ends."""

    __slots__ = ("attempts", "dispatched_at", "first_token_at", "request", "upstream")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.attempts = 0
        self.dispatched_at: float | None = None
        self.first_token_at: float | None = None
        self.upstream = ""

    def outcome(self, result: str, now: float, output_tokens: int | None) -> LoggedOutcome:
        request = self.request
        estimate = request.estimate
        in_time = None if request.deadline == float("inf") else (
            result == "completed" and now <= request.deadline
        )  # fmt: skip
        queued_until = self.dispatched_at if self.dispatched_at is not None else now
        first = self.first_token_at
        return LoggedOutcome(
            result,
            request.traffic_class,
            request.tenant,
            request.model,
            estimate.p50_tokens,
            estimate.p90_tokens,
            estimate.source,
            bucket_of(estimate.p50_tokens),
            request.prompt_tokens,
            output_tokens,
            queued_until - request.arrived_at,
            None if first is None else first - request.arrived_at,
            now - request.arrived_at,
            self.attempts,
            self.upstream,
            in_time,
            request.route,
        )


class DecisionLog:
    """An observer of the driver; give it to `Driver(observers=[...])`.

    Args:
        path: the file; elders are kept beside it as `path.1`, `path.2` and so on.
        run: the factory's, so that public ids can be found again.
        settings: the scheduler's, for replays.
        now: the driver's time, to tie its clock to the calendar.
        max_bytes: a file is rotated before it grows beyond this.
        files: how many files are kept in all, the current one included.
        queue_limit: how many lines may wait for the disk; more are dropped and counted.
        flush_every_s: how old a line may get before it is written.
        wall: the calendar's time, seconds since 1970.
        monotonic: seconds on a clock that never goes back.

    Attributes:
        lost: how many lines were dropped.
        failing: True while the file cannot be written.

    Raises:
        NotPrivate: others may write the file.
        FileInUse: another process writes it.
        OSError: it cannot be opened.

    """

    def __init__(
        self,
        path: Path | str,
        *,
        run: str,
        now: float,
        settings: Settings | None = None,
        max_bytes: int = 64 << 20,
        files: int = 5,
        queue_limit: int = 50_000,
        flush_every_s: float = 0.2,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Open the file, write the header and start the writer."""
        self.path = Path(path)
        self.lost = 0
        self.failing = False
        self._limit = queue_limit
        self._flush_every_s = flush_every_s
        self._begun = {"run": run, "started_unix_s": wall(), "started_at": now}
        self._stories: dict[int, _OpenRequest] = {}
        self._queue: deque[tuple[float, Event | Action, LoggedOutcome | None]] = deque()
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._told_lost = 0
        self._told_unwritable = False
        self._closed = False
        self._wants_reopening = False
        self._retry_at = 0.0
        self._monotonic = monotonic
        self._file = LogFile(self.path, self._header(settings), max_bytes=max_bytes, files=files)
        self._thread = threading.Thread(target=self._run, name="penstock-log", daemon=True)
        self._thread.start()
        atexit.register(self.flush)  # a program that ends without close() keeps its last lines

    def event(self, now: float, event: Event) -> None:
        """Note an event, with the outcome if it ends a request."""
        outcome = None
        if isinstance(event, Arrived):
            request = veiled(event.request)
            self._stories[request.id] = _OpenRequest(request)
            event = event if request is event.request else Arrived(request)
        elif isinstance(event, FirstToken):
            story = self._stories.get(event.request_id)
            if story is not None:
                story.first_token_at = now
        elif isinstance(event, Completed):
            outcome = self._ended(event.request_id, "completed", now, event.output_tokens)
        elif isinstance(event, Cancelled):
            outcome = self._ended(event.request_id, "cancelled", now, None)
        elif isinstance(event, Failed | Throttled) and not event.retryable:
            outcome = self._ended(event.request_id, "failed", now, None)
        self._put(now, event, outcome)

    def action(self, now: float, action: Action) -> None:
        """Note a decision, with the outcome if it ends the request."""
        outcome = None
        if isinstance(action, Dispatch):
            story = self._stories.get(action.request.id)
            if story is not None:
                story.attempts += 1
                story.dispatched_at = now
                story.first_token_at = None
                story.upstream = action.upstream
        elif isinstance(action, Reject):
            outcome = self._ended(action.request.id, "refused", now, None)
        self._put(now, action, outcome)

    def flush(self) -> None:
        """Write everything that is queued, now, from this thread.

        A disk that is full, read-only or gone must not stop the traffic: lines are dropped and
        counted until it can be written again, which is tried every `RETRY_S`.
        """
        with self._writing:
            if self._closed:
                self.lost += len(self._queue)
                self._queue.clear()
                return
            lost = self.lost
            lines = self._lines()
            if self.failing and self._monotonic() < self._retry_at:
                self.lost += len(lines) - (lost > self._told_lost)
                return
            try:
                if self._wants_reopening or self.failing:
                    self._wants_reopening = False
                    self._file.reopen()
                self._file.append(lines)
            except (OSError, PenstockError) as error:
                self.lost += len(lines) - (lost > self._told_lost)
                self._retry_at = self._monotonic() + RETRY_S
                if not self.failing:
                    self.failing = True
                    logger.error(
                        "the decision log %s cannot be written (%s): lines are lost until it can",
                        self.path,
                        getattr(error, "strerror", None) or error,
                    )
                return
            self._told_lost = lost
            if self.failing:
                self.failing = False
                logger.warning(
                    "the decision log %s is written again; %d lines are missing in all",
                    self.path,
                    self.lost,
                )

    def reopen(self) -> None:
        """Go on in the file of that name: whoever rotates logs has moved the old one away."""
        self._wants_reopening = True

    def close(self) -> None:
        """Write the rest and close the file; later lines are dropped."""
        atexit.unregister(self.flush)
        self._stop.set()
        self._thread.join()
        self.flush()
        with self._writing:
            self._file.close()
            self._closed = True

    def abandon(self) -> None:
        """Leave the file to the parent, in a forked child: nothing is written to it any more."""
        atexit.unregister(self.flush)
        self._writing = threading.Lock()
        self._closed = True
        self._queue.clear()
        self._file.close()

    def _ended(
        self, request_id: int, result: str, now: float, output_tokens: int | None
    ) -> LoggedOutcome | None:
        story = self._stories.pop(request_id, None)
        return None if story is None else story.outcome(result, now, output_tokens)

    def _put(self, now: float, what: Event | Action, outcome: LoggedOutcome | None) -> None:
        if len(self._queue) < self._limit:
            self._queue.append((now, what, outcome))
        else:
            self.lost += 1

    def _run(self) -> None:
        while not self._stop.wait(self._flush_every_s):
            if self._queue or self._wants_reopening:
                self.flush()

    def _header(self, settings: Settings | None) -> bytes:
        header = {"penstock_decision_log": VERSION, **self._begun, "settings": settings}
        return jsonio.dumps(header) + b"\n"

    def _lines(self) -> list[bytes]:
        """Return what is queued, and before it how many lines are missing there."""
        lines = []
        if self.lost > self._told_lost:
            lines.append(jsonio.dumps({"lost": self.lost - self._told_lost}) + b"\n")
        while self._queue:
            now, what, outcome = self._queue.popleft()
            if isinstance(what, Reconfigured):  # of this run the next file is all that may be left
                self._file.header = self._header(what.settings)
            try:
                lines.append(jsonio.dumps(line_of(now, what, outcome)) + b"\n")
            except Exception as error:  # noqa: BLE001 - whatever it holds, the others are written
                self.lost += 1
                if not self._told_unwritable:
                    self._told_unwritable = True
                    logger.error(
                        "a line of the decision log cannot be written (%s in %s): it is lost, "
                        "and further ones are not told here",
                        type(error).__name__,
                        type(what).__name__,
                    )
        return lines
