"""Works a batch off: feeds lines to the gate, sends again what has no verdict, writes every end."""

import asyncio
import contextlib
import math
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from penstock.batch.checkpoint import Checkpoint
from penstock.batch.lines import (
    BatchLine,
    error_line,
    output_line,
    parse_line,
    requests_in,
)
from penstock.batch.reply import LONGEST_WAIT_S, BatchReply, Standing
from penstock.batch.sending import Send

EXPIRED = "batch_expired"
SURE_PAGES = 5
"""Where one call in ten gets a page at once and the others an answer later, so many pages come
before the first answer once in 200 runs."""
_FINAL = frozenset((Standing.RESULT, Standing.REFUSED))


@dataclass(frozen=True, slots=True)
class RetryBounds:
    """How long trouble is borne; on top of what the scheduler does by itself.

    Attributes:
        attempts: how often a line is sent in one run that gets no usable answer.
        base_s: longest first pause where no wait is stated; it doubles with each try (full jitter).
        longest_s: no such pause is longer.
        away_s: after so long without a single connection the run ends; most restarts are over.
        idle_s: after so long without a line done, and the longest wait that the provider states,
            a run ends whose lines are refused for lack of room: ten of the minutes by which
            providers meter.

    """

    attempts: int = 6
    base_s: float = 1.0
    longest_s: float = 60.0
    away_s: float = 60.0
    idle_s: float = 600.0


@dataclass(slots=True)
class Batch:
    """One run over a file.

    Attributes:
        source: the input file, inspected before.
        checkpoint: where results go.
        send: sends one line.
        ahead: how many lines are in hand at once; how many of them fly is the gate's business.
        ahead_bytes: no further line is begun while those in hand are as long together.
        deadline_at: loop time after which lines that are not done expire; None for never.
        patience: with trouble.
        on_result: told after each line that is done.
        on_trouble: told what went wrong with a line that will be tried again, and in how many
            seconds that is.
        on_stop: told when no further line is begun, to close the gate.
        chance: draws the pauses' jitter.
        halted: why the run stopped by itself before the end: nothing more could succeed. The
            lines that it hit are left for the next run. Empty if it did not.
        set_aside: how many lines had no verdict in this run, though others had: the next run's.
        trouble: what was wrong with the last of them.

    """

    source: Path
    checkpoint: Checkpoint
    send: Send
    ahead: int = 256
    ahead_bytes: int = 1 << 27
    deadline_at: float | None = None
    patience: RetryBounds = field(default_factory=RetryBounds)
    on_result: Callable[[], object] = lambda: None
    on_trouble: Callable[[str, float], object] = lambda _problem, _wait_s: None
    on_stop: Callable[[], object] = lambda: None
    chance: random.Random = field(default_factory=random.Random)
    halted: str = ""
    set_aside: int = 0
    trouble: str = ""
    _has_result: bool = False
    _pages: int = 0
    _away_since: float = math.inf
    _progress_at: float = 0.0
    _stated_s: float = 0.0
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    _done: asyncio.Event = field(default_factory=asyncio.Event)
    _in_hand_bytes: int = 0

    async def run(self) -> None:
        """Work until every line is done or set aside, or what flies when `stop` was called."""
        lines = self._todo()
        self._note_progress()
        watch = asyncio.create_task(self._watch())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.ahead):
                    group.create_task(self._worker(lines))
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None  # a full disk, say: the first tells it all
        finally:
            watch.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watch

    def stop(self) -> None:
        """Begin no further line; what flies may finish."""
        if not self._stopping.is_set():
            self._stopping.set()
            self.on_stop()

    def connected(self, so: bool) -> None:
        """Note whether the last try for a connection came to anything, whoever tried."""
        now = asyncio.get_running_loop().time()
        self._away_since = math.inf if so else min(self._away_since, now)

    def _todo(self) -> Iterator[tuple[BatchLine, int]]:
        for number, text in requests_in(self.source):
            if number > self.checkpoint.last_line:
                return  # it has grown since the run began; the next run refuses a changed input
            if not self.checkpoint.is_done(number):
                yield parse_line(number, text), len(text)

    async def _worker(self, lines: Iterator[tuple[BatchLine, int]]) -> None:
        while not self._stopping.is_set():
            async with self._turn:
                while self._in_hand_bytes >= self.ahead_bytes:
                    self._done.clear()
                    await self._done.wait()
                line, size_bytes = next(lines, (None, 0))
                self._in_hand_bytes += size_bytes
            if line is None:
                return
            await self._line(line)
            self._in_hand_bytes -= size_bytes
            self._done.set()
            del line  # or it is kept while the next is waited for

    async def _line(self, line: BatchLine) -> None:
        troubles = tries = 0
        done_at_first_trouble = 0
        last: BatchReply | None = None
        while not self._stopping.is_set():
            reply = await self._sent(line)
            if reply is None:
                self._expire(line, last)
                return
            if reply.standing in _FINAL:
                self._file(line, reply)
                return
            if reply.standing is Standing.UNSENT:
                return  # not sent, not done: the next run's
            elsewhere = reply.standing is Standing.ELSEWHERE
            self._pages += elsewhere
            if reply.standing is Standing.BLOCKED or (elsewhere and self._is_misdirected):
                self._halt(reply.why)
                return
            if last is None:
                done_at_first_trouble = self.checkpoint.totals.done
            last = reply
            troubles += 1
            if (elsewhere or reply.standing is Standing.BROKEN) and not reply.away:
                tries += 1
                if tries == self.patience.attempts:
                    self._leave(reply, alone=self.checkpoint.totals.done > done_at_first_trouble)
                    return
            elif not reply.away and self._is_idle(reply):
                return
            if not await self._pause(troubles, reply):
                self._expire(line, reply)
                return

    async def _sent(self, line: BatchLine) -> BatchReply | None:
        """Send a line once and return what came back; None if the deadline has passed."""
        left_s = self._left_s()
        if left_s is not None and left_s <= 0:
            return None
        try:
            async with asyncio.timeout(left_s):
                reply = await self.send(line, deadline_s=left_s)
        except TimeoutError:
            return None
        if reply.away or reply.status:
            self.connected(not reply.away)
        return reply

    def _leave(self, reply: BatchReply, *, alone: bool) -> None:
        """Leave a line without a usable answer to the next run.

        Args:
            reply: the last that came back.
            alone: True if other lines were done meanwhile: it is the line. Else the run ends.

        """
        if alone:
            self.set_aside += 1
            self.trouble = reply.why
        else:
            self._halt(f"the provider gives no usable answer ({reply.why}).")

    @property
    def _is_misdirected(self) -> bool:
        """True if pages came, as a wrong base URL gives, and no answer of the API's."""
        return self._pages >= SURE_PAGES and not self._has_result

    def _is_idle(self, reply: BatchReply) -> bool:
        """End the run if refusals are all that it has got for too long; say whether it has."""
        self._stated_s = max(self._stated_s, reply.wait_s or 0.0)
        idle_s = asyncio.get_running_loop().time() - self._progress_at - self._stated_s
        if idle_s < self.patience.idle_s:
            return False
        minutes = self.patience.idle_s / 60
        self._halt(f"no line was done for {minutes:.0f} minutes ({reply.why}).")
        return True

    def _note_progress(self) -> None:
        self._progress_at = asyncio.get_running_loop().time()
        self._stated_s = 0.0

    async def _watch(self) -> None:
        """End the run when no connection has come about for too long.

        A line alone would not show it: the gate holds most of them back while its circuit breaker
        is open.
        """
        while not await self._stops_within(1.0):
            away_s = asyncio.get_running_loop().time() - self._away_since
            if away_s >= self.patience.away_s:
                self._halt(
                    f"the provider cannot be reached (no connection for {away_s:.0f} s): is it up?"
                )

    def _halt(self, why: str) -> None:
        self.halted = self.halted or why
        self.stop()

    async def _pause(self, troubles: int, reply: BatchReply) -> bool:
        """Wait before the next try; False if the deadline does not allow it."""
        wait_s = reply.wait_s
        if wait_s is None:
            spread_s = self.patience.base_s * 2.0 ** min(troubles, 10)
            wait_s = min(self.chance.random() * spread_s, self.patience.longest_s)
        wait_s = min(wait_s, LONGEST_WAIT_S)
        left_s = self._left_s()
        if left_s is not None and wait_s >= left_s:
            return False
        self.on_trouble(reply.why, wait_s)
        await self._stops_within(wait_s)
        return True

    async def _stops_within(self, seconds: float) -> bool:
        """Return True as soon as the run is to stop; False once the seconds are over."""
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return False
        return True

    def _file(self, line: BatchLine, reply: BatchReply) -> None:
        answer = output_line(line, reply.status, reply.request_id, reply.body)
        if reply.standing is Standing.RESULT:
            self._has_result = True
            self.checkpoint.succeeded(line.number, answer, reply.usage)
        else:
            self.checkpoint.failed(line.number, answer)
        self._note_progress()
        self.on_result()

    def _expire(self, line: BatchLine, last: BatchReply | None) -> None:
        """Write what the deadline has ended: the provider's last answer, if it gave one."""
        if last is not None and last.status and not last.ours:
            self._file(line, last)
            return
        self.checkpoint.failed(line.number, _expired(line))
        self.on_result()

    def _left_s(self) -> float | None:
        if self.deadline_at is None:
            return None
        return self.deadline_at - asyncio.get_running_loop().time()


def _expired(line: BatchLine) -> bytes:
    message = "This request could not be executed before the batch's deadline."
    return error_line(line, EXPIRED, message)
