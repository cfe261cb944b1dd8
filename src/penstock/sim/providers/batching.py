"""`batching`: an engine that decodes all its sequences together, an iteration at a time.

Iterations are not played one by one. As long as nobody comes, goes or runs out of cache, each is
as long as the one before: such a stretch is one event, however many iterations it has.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import heappop, heappush

from penstock.sim.params import count, not_negative, positive
from penstock.sim.providers.base import (
    Happening,
    Job,
    Occupancy,
    Provider,
    ProviderEvent,
    ProviderRefusal,
)
from penstock.sim.providers.changes import Change, Timeline
from penstock.sim.providers.places import Prompts, cached_of

CHUNK_TOKENS = 512
"""Prompt tokens that an iteration takes in where prompts are chunked (vLLM's first default)."""
_ROUNDING = 1e-9
"""Of an iteration: a boundary so near is meant by a time that was reckoned from it."""


class BatchingParams(Prompts):
    """Continuous batching with a KV cache: vLLM from outside.

    An iteration with n sequences takes iteration_base_s + n x iteration_per_seq_s, and each
    sequence that is past its prompt gains one token.

    Attributes:
        max_seqs: how many sequences at most; others wait first come, first served.
        kv_tokens: how many tokens, of prompts and replies, the cache holds. Where the next tokens
            do not fit, the sequence admitted last is preempted; it comes back, before those that
            wait, when there is room, and everything of it is computed again. A sequence that is
            larger than the cache runs alone.
        prefill_tokens_per_s: how fast prompts are read; their time is added to the iteration's.
        chunked: whether prompts share iterations with decoding, 512 of their tokens at a time, or
            stall it: an iteration of their own reads all prompts that came in.

    Source:
        Kwon et al., "PagedAttention", SOSP 2023 (preemption by recomputation, last come first
        out); Agrawal et al., "Sarathi-Serve", OSDI 2024 (chunked prefill). The constants are ours.

    """

    max_seqs: int = count(32)
    kv_tokens: int = count(100_000)
    iteration_base_s: float = positive(0.012)
    iteration_per_seq_s: float = not_negative(0.0006)
    chunked: bool = True
    prefill_tokens_per_s: float = positive(10_000.0, low=1e-3)


@dataclass(slots=True, eq=False)
class _Sequence:
    """A job inside the engine.

    Attributes:
        output_tokens: after which it ends: luck is in the decoding, as more iterations or fewer.
        unread: tokens of the prompt, and of the reply if it was preempted, still to be computed.
        emitted: reply tokens when `since` was noted. since: the token clock's reading when its
            decoding last began.
        decoding: whether it is past its prompt. number: of its last admission; 0 if it had none.

    """

    job: Job
    cached_tokens: int | None
    output_tokens: int
    number: int = 0
    unread: int = 0
    emitted: int = 0
    since: int = 0
    decoding: bool = False
    alive: bool = True

    def emitted_at(self, clock: int) -> int:
        """Return how many tokens there are when the token clock shows this."""
        return self.emitted + (clock - self.since if self.decoding else 0)

    def held_at(self, clock: int) -> int:
        """Return how many tokens of it the cache holds: the last one emitted is not yet in it."""
        return self.job.prompt_tokens + self.emitted_at(clock) - self.decoding


@dataclass(slots=True)
class _Stretch:
    """Iterations that are all alike.

    Attributes:
        at, end_at: when the first begins, when the last ends.
        each_s: how long each takes. iterations: how many there are; 0 if the engine is idle.
        chunk: tokens of prompts that each reads. decoders: sequences that gain a token in each.

    """

    at: float = 0.0
    end_at: float = math.inf
    each_s: float = 1.0
    iterations: int = 0
    chunk: int = 0
    decoders: int = 0

    def passed(self, now: float) -> int:
        """Return how many iterations are over by `now`."""
        done = math.floor((now - self.at) / self.each_s + _ROUNDING)
        return max(0, min(self.iterations, done))

    def begun(self, now: float) -> int:
        """Return how many iterations are over or under way at `now`."""
        begun = math.ceil((now - self.at) / self.each_s - _ROUNDING)
        return max(0, min(self.iterations, begun))


class BatchingServer(Provider):
    """The engine. Its token clock counts the iterations in which sequences were decoded."""

    def __init__(
        self,
        params: BatchingParams,
        changes: Iterable[Change[BatchingParams]] = (),
        *,
        seed: int = 0,
    ) -> None:
        self._params = params
        self._changes = Timeline(changes)
        self._seed = seed
        self._jobs: dict[int, _Sequence] = {}
        self._waiting: deque[_Sequence] = deque()
        self._running: dict[int, _Sequence] = {}  # by number, in the order in which they came in
        self._reading: deque[_Sequence] = deque()  # who of these has not been read
        self._ends: list[tuple[int, int, int, _Sequence]] = []
        self._cancelled: list[_Sequence] = []  # still running
        self._admitted = 0
        self._clock = 0
        self._held_tokens = 0
        self._at = 0.0
        self._stretch: _Stretch | None = _Stretch()

    def submit(self, job: Job, *, now: float) -> ProviderRefusal | None:
        """Take the job in; if there is room it joins when the iteration under way ends."""
        _, luck = job.luck or (1.0, 1.0)
        output_tokens = max(1, round(luck * job.output_tokens))
        sequence = _Sequence(job, cached_of(self._params, self._seed, job), output_tokens)
        self._jobs[job.id] = sequence
        self._waiting.append(sequence)
        if len(self._waiting) == 1 and self._fits(sequence):
            self._cut(now)
        return None

    def cancel(self, job_id: int, *, now: float) -> None:
        """Forget the job; what it holds is free when the iteration under way ends."""
        sequence = self._jobs.pop(job_id, None)
        if sequence is None:
            return
        if sequence.number in self._running:
            sequence.alive = False
            self._cancelled.append(sequence)
        else:
            self._waiting.remove(sequence)
        self._cut(now)

    def next_event_at(self) -> float:
        """Return when the stretch under way ends; inf if nobody is inside."""
        return self._planned().end_at

    def advance(self, *, now: float) -> list[ProviderEvent]:
        """Return what happened up to and including `now`, in order of time, then job id."""
        out: list[ProviderEvent] = []
        while (stretch := self._planned()).end_at <= now:
            self._end(stretch, out)
        out.sort(key=lambda event: (event.at, event.job_id))
        return out

    def tokens_done(self, job_id: int, *, now: float) -> int:
        """Return how many tokens of the job have been emitted by `now`."""
        sequence = self._jobs.get(job_id)
        if sequence is None:
            return 0
        stretch = self._planned()
        passed = stretch.passed(now) if stretch.decoders else 0
        return min(sequence.job.output_tokens, sequence.emitted_at(self._clock + passed))

    def tokens_reached(self, job_id: int, *, now: float) -> float:
        """Return as `tokens_done` does, with the share of the iteration under way that is over."""
        sequence = self._jobs.get(job_id)
        if sequence is None:
            return 0.0
        stretch = self._planned()
        passed = stretch.passed(now) if stretch.decoders else 0
        share = (now - stretch.at) / stretch.each_s - passed
        under_way = share if stretch.decoders and sequence.decoding else 0.0
        return sequence.emitted_at(self._clock + passed) + max(0.0, min(1.0, under_way))

    def load(self) -> Occupancy:
        """Return how many sequences run and how many wait."""
        self._planned()
        return Occupancy(len(self._running), len(self._waiting))

    def _planned(self) -> _Stretch:
        """Return the stretch under way; planned late, as several jobs may come at one instant."""
        if self._stretch is None:
            self._params = self._changes.latest(self._params, now=self._at)
            self._drop_cancelled()
            self._preempt()
            self._admit()
            self._stretch = self._plan()
        return self._stretch

    def _cut(self, now: float) -> None:
        """End the stretch with the iteration under way at `now`."""
        stretch = self._stretch
        if stretch is None:
            return
        begun = stretch.begun(now)
        if not stretch.iterations:
            self._at, self._stretch = now, None
        elif not begun:
            self._stretch = None
        elif begun < stretch.iterations:
            stretch.iterations = begun
            stretch.end_at = max(now, stretch.at + begun * stretch.each_s)

    def _drop_cancelled(self) -> None:
        """Free what cancelled sequences hold."""
        for sequence in self._cancelled:
            self._leave(sequence)
        self._cancelled.clear()

    def _preempt(self) -> None:
        """Preempt the last admitted until the next tokens of all others fit."""
        while self._held_tokens + self._decoders() > self._params.kv_tokens:
            if len(self._running) == 1:
                return
            sequence = next(reversed(self._running.values()))
            self._leave(sequence)
            sequence.emitted = sequence.emitted_at(self._clock)
            sequence.decoding = False
            self._waiting.appendleft(sequence)

    def _leave(self, sequence: _Sequence) -> None:
        del self._running[sequence.number]
        self._held_tokens -= sequence.held_at(self._clock)
        if not sequence.decoding:
            self._reading.remove(sequence)

    def _admit(self) -> None:
        while self._waiting and self._fits(self._waiting[0]):
            sequence = self._waiting.popleft()
            computed = sequence.job.prompt_tokens + sequence.emitted
            sequence.unread = computed - (sequence.cached_tokens or 0)
            self._held_tokens += computed
            self._admitted += 1
            sequence.number = self._admitted
            self._running[sequence.number] = sequence
            self._reading.append(sequence)

    def _fits(self, sequence: _Sequence) -> bool:
        """Return True if it may come in and everybody's next token still fits."""
        running = len(self._running)
        if not running:
            return True
        needed = sequence.job.prompt_tokens + sequence.emitted + running + 1
        room = self._held_tokens + needed <= self._params.kv_tokens
        return room and running < self._params.max_seqs

    def _decoders(self) -> int:
        return len(self._running) - len(self._reading)

    def _plan(self) -> _Stretch:
        """Return the stretch that begins now: until anything about its iterations changes."""
        p, running, decoders = self._params, len(self._running), self._decoders()
        if not running:
            return _Stretch(self._at)
        chunk, most = 0, 1 << 60
        if self._reading and p.chunked:
            chunk, most = self._chunks()
        elif self._reading:
            chunk, most = sum(s.unread for s in self._reading), 1
            running, decoders = len(self._reading), 0
        each_s = p.iteration_base_s + running * p.iteration_per_seq_s
        each_s += chunk / p.prefill_tokens_per_s
        if decoders:
            most = min(most, self._next_end() - self._clock)
            if running > 1:
                most = min(most, (p.kv_tokens - self._held_tokens) // decoders)
        if self._changes.at_s < self._at + most * each_s:
            most = math.ceil((self._changes.at_s - self._at) / each_s)
        return _Stretch(self._at, self._at + most * each_s, each_s, most, chunk, decoders)

    def _chunks(self) -> tuple[int, int]:
        """Return how many tokens of prompts the next iterations read each, and how many do so."""
        first = self._reading[0].unread
        if first > CHUNK_TOKENS:
            return CHUNK_TOKENS, (first - 1) // CHUNK_TOKENS
        return min(CHUNK_TOKENS, sum(s.unread for s in self._reading)), 1

    def _next_end(self) -> int:
        """Return the token clock's reading at which the next sequence ends."""
        while not self._is_running(self._ends[0]):
            heappop(self._ends)
        return self._ends[0][0]

    def _is_running(self, entry: tuple[int, int, int, _Sequence]) -> bool:
        """Return False for one preempted or cancelled since it began to decode."""
        _, _, number, sequence = entry
        return sequence.number == number and number in self._running

    def _end(self, stretch: _Stretch, out: list[ProviderEvent]) -> None:
        """Let the stretch's iterations have happened."""
        self._at, self._stretch = stretch.end_at, None
        if stretch.decoders:
            self._clock += stretch.iterations
            self._held_tokens += stretch.iterations * stretch.decoders
            while self._ends and self._ends[0][0] <= self._clock:
                entry = heappop(self._ends)
                if self._is_running(entry):
                    self._finish(entry[3], out)
        left = stretch.iterations * stretch.chunk
        while self._reading:
            sequence = self._reading[0]
            read = min(left, sequence.unread)
            left -= read
            sequence.unread -= read
            if sequence.unread:
                break
            self._reading.popleft()
            self._decode(sequence, out)

    def _decode(self, sequence: _Sequence, out: list[ProviderEvent]) -> None:
        """Begin to decode a sequence that has been read: its next token is there."""
        sequence.emitted += 1
        sequence.decoding, sequence.since = True, self._clock
        if sequence.emitted == 1:
            self._emit(sequence, Happening.FIRST_TOKEN, out)
        left = sequence.output_tokens - sequence.emitted
        if left > 0:
            entry = (self._clock + left, sequence.job.id, sequence.number, sequence)
            heappush(self._ends, entry)
        else:
            self._finish(sequence, out)

    def _finish(self, sequence: _Sequence, out: list[ProviderEvent]) -> None:
        if sequence.alive:
            self._leave(sequence)
            del self._jobs[sequence.job.id]
            self._emit(sequence, Happening.FINISHED, out)

    def _emit(self, sequence: _Sequence, what: Happening, out: list[ProviderEvent]) -> None:
        if sequence.alive:
            cached = sequence.cached_tokens
            out.append(ProviderEvent(self._at, sequence.job.id, what, cached_tokens=cached))
