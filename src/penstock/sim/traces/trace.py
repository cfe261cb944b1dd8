"""Recordings of a row per call, and what each answers to, as `servegen` does too."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from penstock.core.model import TrafficClass
from penstock.schema.types import Complaints
from penstock.sim.calls import Item

MOST_TOKENS = 1_000_000_000
"""More in one prompt or reply is no count of tokens."""


@dataclass(frozen=True, slots=True)
class RowTrace:
    """A recording of one row per call.

    Attributes:
        rows: in order of time; `at` is 0 throughout if the recording has no times.
        jitter_s: the recording's times are rounded down to this; spread evenly over it.
        classes: traffic classes that the recording itself speaks of.

    """

    rows: tuple[Item, ...]
    timed: bool = True
    jitter_s: float = 0.0
    classes: tuple[TrafficClass, ...] = ()

    def lengths(self) -> Sequence[int]:
        """Return output lengths that stand for the whole, in tokens."""
        return [row.output_tokens for row in self.rows]

    def items(
        self,
        chance: Random,
        *,
        count: int | None,
        rate_per_s: float | None,
        times: Iterator[float] | None,
    ) -> Iterator[Item]:
        """Yield the calls in order of time, from 0; with times, from any row on and round again.

        Args:
            chance: for what the recording leaves open (jitter, draws).
            count: how many will be taken; None for all.
            rate_per_s: stretch time to this mean rate; None for as recorded.
            times: arrival times for a recording without its own.

        """
        if times is not None:
            yield from self._on_times(chance, times, count)
            return
        rows = self.rows[:count]
        at = [row.at + self.jitter_s * chance.random() for row in rows]
        first = min(at, default=0.0)
        span_s = max(at, default=0.0) - first
        stretch = len(rows) / span_s / rate_per_s if rate_per_s and span_s > 0 else 1.0
        placed = sorted(((t - first) * stretch, n) for n, t in enumerate(at))
        for t, n in placed:
            yield rows[n].moved_to(t)

    def complaints(self, count: int | None, rate_per_s: float | None) -> Complaints:
        """Yield more calls than there are rows, and a rate for rows that all have one time."""
        if not self.timed:
            return
        if count is not None and count > len(self.rows):
            yield "requests", f"must be at most {len(self.rows)}: the trace has no more"
        rows = self.rows[:count]
        if rate_per_s and len(rows) > 1 and not self.jitter_s and rows[0].at == rows[-1].at:
            rule = (
                f"must not stand beside a trace whose rows all have the time {rows[0].at:g}: no "
                "stretching spreads them"
            )
            yield "rate_per_s", rule

    def _on_times(
        self, chance: Random, times: Iterator[float], count: int | None
    ) -> Iterator[Item]:
        start = chance.randrange(len(self.rows))
        for n, at in zip(range(count or len(self.rows)), times, strict=False):
            yield self.rows[(start + n) % len(self.rows)].moved_to(at)
