"""The comparison as a table, and where penstock's default loses."""

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from benchmarks.engines.play import Cell, Played
from penstock.metrics import RequestRecord, measure

LEAST_OF_TOLD, LEAST_THROUGHPUT = 0.95, 0.9
HEAD = (
    f"{'load':>4} {'streamed':>8} {'arm':15} {'in time':>7} {'interact.':>9} {'batch':>6} "
    f"{'short P95':>9} {'tokens/s':>8} {'done':>5} {'unused':>6}  window by round"
)


@dataclass(frozen=True, slots=True)
class Row:
    """One arm in one cell.

    Attributes:
        in_time: shares of the calls that met their deadline.
        done: share that had a reply at all.
        unused: mean share of the engine's places that nobody used while a call was open.
        rounds: share in time, in each round.
        windows: median of each round; empty where there is none to see.

    """

    load: float
    streamed: float
    arm: str
    in_time: float
    interactive_in_time: float
    batch_in_time: float
    short_p95_s: float
    tokens_per_s: float
    done: float
    unused: float
    rounds: tuple[float, ...]
    windows: tuple[float, ...]

    def line(self) -> str:
        """Return it as one line."""
        windows = " ".join(f"{window:.0f}" for window in self.windows)
        return (
            f"{self.load:4g} {self.streamed:8.0%} {self.arm:15} {self.in_time:7.3f} "
            f"{self.interactive_in_time:9.3f} {self.batch_in_time:6.3f} {self.short_p95_s:7.2f} s "
            f"{self.tokens_per_s:8.0f} {self.done:5.0%} {self.unused:6.0%}  {windows}"
        )

    def figures(self) -> dict[str, object]:
        """Return it as plain data."""
        return asdict(self)


def row_of(cell: Cell, name: str, played: Played) -> Row:
    """Return what an arm did."""
    found = measure(played.every)
    return Row(
        cell.load,
        cell.streamed,
        name,
        found.deadline_satisfaction,
        _in_time(played.records["interactive"]),
        _in_time(played.records["batch"]),
        found.short_p95_s or 0.0,
        played.tokens / played.span_s,
        found.completion_rate,
        statistics.mean(played.unused or [0.0]),
        tuple(played.rounds),
        tuple(statistics.median(each) for each in played.windows if each),
    )


def _in_time(records: Sequence[RequestRecord]) -> float:
    return sum(each.in_time for each in records) / max(1, len(records))


def _chance(ours: Row, other: Row) -> str:
    """Say how far apart both are by chance: each round sent both arms the same calls."""
    apart = [theirs - mine for mine, theirs in zip(ours.rounds, other.rounds, strict=True)]
    if len(apart) < 2:
        return ""
    error = statistics.stdev(apart) / math.sqrt(len(apart))
    return f" (less by {statistics.mean(apart):.3f} a round, standard error {error:.3f})"


def lost(rows: Sequence[Row]) -> list[str]:
    """Say in which cells penstock's default is below what others reach."""
    cells: dict[tuple[float, float], dict[str, Row]] = defaultdict(dict)
    for each in rows:
        cells[each.load, each.streamed][each.arm] = each
    found = []
    for (load, streamed), arms in cells.items():
        ours = arms.get("penstock")
        if ours is None:
            continue
        for name, other in arms.items():
            share = LEAST_OF_TOLD if name == "penstock told" else 1.0
            if name != "sidecar" and ours.in_time < share * other.in_time:
                found.append(
                    f"load {load:g}, {streamed:.0%} streamed: in time {ours.in_time:.3f}, "
                    f"{name} {other.in_time:.3f}{_chance(ours, other)}"
                )
        direct = arms.get("direct")
        if direct and ours.tokens_per_s < LEAST_THROUGHPUT * direct.tokens_per_s:
            found.append(
                f"load {load:g}, {streamed:.0%} streamed: {ours.tokens_per_s:.0f} tokens/s, "
                f"direct {direct.tokens_per_s:.0f}"
            )
    return found
