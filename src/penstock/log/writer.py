"""Writes every event and every decision to a file, one JSON object a line.

No prompt and no key can get in: the core never sees them. The file is bounded (it rotates), and
so is the memory in front of it. The loop only appends to a queue (0.1 us); a thread of its own
writes, so a slow disk holds nobody up.
"""

import atexit
import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Event,
    Failed,
    FirstToken,
    Reject,
    Throttled,
)
from penstock.core.model import Request, bucket_of
from penstock.core.settings import Settings
from penstock.log.format import VERSION, Outcome, line_of, veiled
from penstock.wire import jsonio

logger = logging.getLogger("penstock.decision_log")


class _Story:
    """What is remembered of a request until it ends."""

    __slots__ = ("attempts", "dispatched_at", "first_token_at", "request", "upstream")

    def __init__(self, request: Request) -> None:
        self.request = request
        self.attempts = 0
        self.dispatched_at: float | None = None
        self.first_token_at: float | None = None
        self.upstream = ""

    def outcome(self, result: str, now: float, output_tokens: int | None) -> Outcome:
        request = self.request
        estimate = request.estimate
        in_time = None if request.deadline == float("inf") else (
            result == "completed" and now <= request.deadline
        )  # fmt: skip
        queued_until = self.dispatched_at if self.dispatched_at is not None else now
        first = self.first_token_at
        return Outcome(
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

    Attributes:
        lost: how many lines were dropped.

    Raises:
        OSError: the file cannot be opened.

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
    ) -> None:
        """Open the file, write the header and start the writer."""
        self.path = Path(path)
        self.lost = 0
        self._max_bytes = max_bytes
        self._files = max(1, files)
        self._limit = queue_limit
        self._flush_every_s = flush_every_s
        header = {"run": run, "started_unix_s": wall(), "started_at": now, "settings": settings}
        self._header = jsonio.dumps({"penstock_decision_log": VERSION, **header}) + b"\n"
        self._stories: dict[int, _Story] = {}
        self._queue: deque[tuple[float, Event | Action, Outcome | None]] = deque()
        self._writing = threading.Lock()
        self._stop = threading.Event()
        self._told_lost = 0
        self._failed = False
        self._size = 0
        self._file = self._open()
        self._thread = threading.Thread(target=self._run, name="penstock-log", daemon=True)
        self._thread.start()
        atexit.register(self.flush)  # a program that ends without close() keeps its last lines

    def event(self, now: float, event: Event) -> None:
        """Note an event, with the outcome if it ends a request."""
        outcome = None
        if isinstance(event, Arrived):
            request = veiled(event.request)
            self._stories[request.id] = _Story(request)
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
        """Write everything that is queued, now, from this thread."""
        with self._writing:
            if self._failed:
                self.lost += len(self._queue)
                self._queue.clear()
                return
            try:
                self._write_queue()
                self._file.flush()
            except OSError:
                # A full disk must not stop the traffic; say so once, and count what is missing.
                self._failed = True
                self.lost += len(self._queue) + 1
                self._queue.clear()
                logger.exception("the decision log %s cannot be written; it ends here", self.path)

    def close(self) -> None:
        """Write the rest and close the file; later lines are dropped."""
        atexit.unregister(self.flush)
        self._stop.set()
        self._thread.join()
        self.flush()
        with self._writing:
            if not self._failed:
                self._file.close()
            self._failed = True

    def abandon(self) -> None:
        """Leave the file to the parent, in a forked child: nothing is written to it any more.

        Its descriptor is pointed elsewhere, for what is buffered would be written at its end.
        """
        atexit.unregister(self.flush)
        self._writing = threading.Lock()
        self._failed = True
        self._queue.clear()
        with Path(os.devnull).open("ab") as nowhere:
            os.dup2(nowhere.fileno(), self._file.fileno())

    def _ended(
        self, request_id: int, result: str, now: float, output_tokens: int | None
    ) -> Outcome | None:
        story = self._stories.pop(request_id, None)
        return None if story is None else story.outcome(result, now, output_tokens)

    def _put(self, now: float, what: Event | Action, outcome: Outcome | None) -> None:
        if len(self._queue) < self._limit:
            self._queue.append((now, what, outcome))
        else:
            self.lost += 1

    def _run(self) -> None:
        while not self._stop.wait(self._flush_every_s):
            if self._queue:
                self.flush()

    def _write_queue(self) -> None:
        if self.lost > self._told_lost:
            self._write(jsonio.dumps({"lost": self.lost - self._told_lost}) + b"\n")
            self._told_lost = self.lost
        while self._queue:
            now, what, outcome = self._queue.popleft()
            self._write(jsonio.dumps(line_of(now, what, outcome)) + b"\n")

    def _write(self, line: bytes) -> None:
        if self._size + len(line) > self._max_bytes and self._size > len(self._header):
            self._rotate()
        self._file.write(line)
        self._size += len(line)

    def _open(self) -> BinaryIO:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        _drop_cut_line(self.path)
        file = self.path.open("ab")
        self._size = file.tell()
        file.write(self._header)
        self._size += len(self._header)
        file.flush()
        return file

    def _rotate(self) -> None:
        self._file.close()
        for number in range(self._files - 1, 0, -1):
            elder = self.path if number == 1 else self._elder(number - 1)
            if elder.exists():
                elder.replace(self._elder(number))
        if self._files == 1:
            self.path.unlink(missing_ok=True)
        self._file = self._open()

    def _elder(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")


def _drop_cut_line(path: Path) -> None:
    """Remove what a crash left of a line at the file's end."""
    if not path.exists():
        return
    with path.open("r+b") as file:
        end = file.seek(0, 2)
        while end > 0:
            start = max(0, end - 65_536)
            file.seek(start)
            newline = file.read(end - start).rfind(b"\n")
            if newline >= 0:
                file.truncate(start + newline + 1)
                return
            end = start
        file.truncate(0)
