"""Works a batch off: feeds lines to the gate, tries again what may be, writes every end."""

import asyncio
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from penstock.batch.checkpoint import Checkpoint
from penstock.batch.lines import (
    Line,
    error_line,
    output_line,
    parse_line,
    requests_in,
)
from penstock.batch.sending import Reply, Send, Unreachable

EXPIRED = "batch_expired"
_RETRIED = frozenset({408, 409, 429, *range(500, 600)})


@dataclass(frozen=True, slots=True)
class Patience:
    """How a line that failed is tried again; on top of what the scheduler does by itself.

    Attributes:
        attempts: how often a line is sent at most.
        base_s: longest first pause; it doubles with each try (full jitter).
        longest_s: no pause is longer, whatever the provider says.

    """

    attempts: int = 6
    base_s: float = 1.0
    longest_s: float = 60.0


@dataclass(slots=True)
class Batch:
    """One run over a file.

    Attributes:
        source: the input file, inspected before.
        checkpoint: where results go.
        send: sends one line.
        ahead: how many lines are in hand at once; how many of them fly is the gate's business.
        deadline_at: loop time after which lines that are not done expire; None for never.
        patience: for failures.
        on_result: told after each line that is done.
        on_trouble: told what went wrong with a line that will be tried again.
        chance: draws the pauses' jitter.
        halted: why the run stopped by itself before the end: nothing more could succeed. The
            lines that it hit are left for the next run. Empty if it did not.

    """

    source: Path
    checkpoint: Checkpoint
    send: Send
    ahead: int = 256
    deadline_at: float | None = None
    patience: Patience = field(default_factory=Patience)
    on_result: Callable[[], object] = lambda: None
    on_trouble: Callable[[str], object] = lambda _problem: None
    chance: random.Random = field(default_factory=random.Random)
    halted: str = ""
    _stopping: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self) -> None:
        """Work until everything is done, or what flies when `stop` was called."""
        lines = self._todo()
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(self.ahead):
                    group.create_task(self._worker(lines))
        except ExceptionGroup as problems:
            raise problems.exceptions[0] from None  # a full disk, say: the first tells it all

    def stop(self) -> None:
        """Begin no further line; what flies may finish. Close the gate as well."""
        self._stopping.set()

    def _todo(self) -> Iterator[Line]:
        for number, text in requests_in(self.source):
            if not self.checkpoint.is_done(number):
                yield parse_line(number, text)

    async def _worker(self, lines: Iterator[Line]) -> None:
        while not self._stopping.is_set():
            line = next(lines, None)
            if line is None:
                return
            await self._line(line)

    async def _line(self, line: Line) -> None:
        for attempt in range(1, self.patience.attempts + 1):
            left_s = self._left_s()
            if left_s is not None and left_s <= 0:
                self._give_up(line, None, _expired(line))
                return
            reply: Reply | None = None
            away = False
            try:
                async with asyncio.timeout(left_s):
                    reply = await self.send(line, deadline_s=left_s)
                problem = f"HTTP {reply.status}"
            except (Unreachable, TimeoutError) as error:
                problem = str(error) or "no answer in time"
                away = isinstance(error, Unreachable) and error.away
            if reply is not None and reply.draining:
                return  # not sent, not done: the next run's
            if reply is not None and reply.blocked:
                self._halt(reply.blocked)
                return
            if reply is not None and (reply.final or reply.status not in _RETRIED):
                self._answered(line, reply)
                return
            if attempt == self.patience.attempts:
                if away:
                    self._halt(f"the provider cannot be reached ({problem}): is it up?")
                    return
                self._give_up(line, reply, error_line(line, "unreachable", problem))
                return
            self.on_trouble(problem)
            if not await self._pause(attempt, reply):
                self._give_up(line, reply, _expired(line))
                return
            if self._stopping.is_set():
                return

    def _halt(self, why: str) -> None:
        self.halted = self.halted or why
        self._stopping.set()

    async def _pause(self, attempt: int, reply: Reply | None) -> bool:
        """Wait before the next try; False if the deadline does not allow it."""
        asked_s = reply.retry_after_s if reply is not None else None
        pause_s = asked_s or self.chance.random() * self.patience.base_s * 2.0**attempt
        pause_s = min(pause_s, self.patience.longest_s)
        left_s = self._left_s()
        if left_s is not None and pause_s >= left_s:
            return False
        try:
            async with asyncio.timeout(pause_s):
                await self._stopping.wait()
        except TimeoutError:
            pass  # the pause is over and nobody wants to stop
        return True

    def _answered(self, line: Line, reply: Reply) -> None:
        answer = output_line(line, reply.status, reply.request_id, reply.body)
        if reply.status < 400:
            self.checkpoint.succeeded(
                line.number, answer, prompt=reply.prompt_tokens, output=reply.output_tokens
            )
        else:
            self.checkpoint.failed(line.number, answer)
        self.on_result()

    def _give_up(self, line: Line, reply: Reply | None, answer: bytes) -> None:
        """Write the provider's last answer, or ours if it gave none."""
        if reply is not None:
            self._answered(line, reply)
            return
        self.checkpoint.failed(line.number, answer)
        self.on_result()

    def _left_s(self) -> float | None:
        if self.deadline_at is None:
            return None
        return self.deadline_at - asyncio.get_running_loop().time()


def _expired(line: Line) -> bytes:
    message = "This request could not be executed before the batch's deadline."
    return error_line(line, EXPIRED, message)
