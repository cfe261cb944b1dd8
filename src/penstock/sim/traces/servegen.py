"""ServeGen's client-by-client description of a production load.

Rates: one row per client and 10-minute window, with the law of its gaps. Lengths: per client and
6-hour window, quantiles by field, in the file of the same name with `length_quantiles` for `rates`.

Source:
    alibaba/ServeGen (Xiang et al., 2025), Apache-2.0.

"""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from random import Random

from penstock.core.model import TrafficClass
from penstock.errors import ConfigError
from penstock.schema.types import Complaints
from penstock.sim import arrivals
from penstock.sim.calls import Item
from penstock.sim.traces.trace import number_in, read_lines, rows_of

RATE_WINDOW_S = 600.0
LENGTH_WINDOW_S = 21_600.0
_LEVELS = (0.01, 0.05, 0.10, 0.25, 0.50, 0.75, 0.90, 0.95, 0.99, 1.0)
_COLUMNS = ("q01", "q05", "q10", "q25", "q50", "q75", "q90", "q95", "q99", "max")

Quantiles = tuple[float, ...]


@dataclass(frozen=True, slots=True)
class RateRow:
    """One client in one window: `shape` is that of its gamma or Weibull gaps."""

    client: str
    at: float
    rate_per_s: float
    law: str
    shape: float


@dataclass(frozen=True, slots=True)
class ServeGenTrace:
    """A load to draw calls from: the busiest part of the recording if only some are wanted.

    Attributes:
        rates: in order of time, then client.
        quantiles: by client, field and length window; clients without any use everyone's.
        timed, classes: as `RowTrace` has them: the rates say when, and clients are no classes.

    """

    rates: tuple[RateRow, ...]
    quantiles: dict[tuple[str, str, int], Quantiles]
    timed: bool = True
    classes: tuple[TrafficClass, ...] = ()

    def lengths(self) -> Sequence[int]:
        """Return the medians and upper quantiles of the clients, each once."""
        found = [q for (_, field, _), q in self.quantiles.items() if field == "output_tokens"]
        return [round(value) for q in found for value in q[2:8]]

    def items(
        self,
        chance: Random,
        *,
        count: int | None,
        rate_per_s: float | None,
        times: Iterator[float] | None,
    ) -> Iterator[Item]:
        """Yield calls: each client's own gaps, lengths by its own quantiles."""
        total = math.fsum(r.rate_per_s for r in self.rates) * RATE_WINDOW_S
        span_s = self.rates[-1].at + RATE_WINDOW_S - self.rates[0].at
        stretch = total / span_s / rate_per_s if rate_per_s else 1.0
        start = self._busiest_start(count) if count is not None else self.rates[0].at
        rows = [r for r in self.rates if r.at >= start]
        for at, client in islice(self._calls(rows, chance), count):
            yield Item(
                at=(at - start) * stretch,
                output_tokens=self._draw(client, "output_tokens", at, chance),
                prompt_tokens=self._draw(client, "input_tokens", at, chance),
                tenant=client,
            )

    def complaints(self, count: int | None, rate_per_s: float | None) -> Complaints:
        """Yield nothing: the calls are drawn, and no rate is out of reach."""
        yield from ()

    def _busiest_start(self, count: int) -> float:
        """Return the window from which `count` calls come soonest; the first of equals."""
        by_time: dict[float, float] = {}
        for row in self.rates:
            by_time[row.at] = by_time.get(row.at, 0.0) + row.rate_per_s * RATE_WINDOW_S
        starts = sorted(by_time)
        best, best_span_s = starts[0], math.inf
        for number, start in enumerate(starts):
            expected = 0.0
            for at in starts[number:]:
                expected += by_time[at]
                if expected >= count:
                    if at - start < best_span_s:
                        best, best_span_s = start, at - start
                    break
        return best

    def _calls(self, rows: list[RateRow], chance: Random) -> Iterator[tuple[float, str]]:
        """Yield (time, client), window by window; gaps do not run over a window's end."""
        for first in sorted({row.at for row in rows}):
            window = [row for row in rows if row.at == first]
            streams = [_one_client(row, Random(chance.getrandbits(64))) for row in window]
            yield from heapq.merge(*streams)

    def _draw(self, client: str, field: str, at: float, chance: Random) -> int:
        window = int(at // LENGTH_WINDOW_S) * int(LENGTH_WINDOW_S)
        key = (client, field, window)
        quantiles = self.quantiles.get(key) or self._nearest(client, field)
        return round(_at_level(quantiles, chance.random()))

    def _nearest(self, client: str, field: str) -> Quantiles:
        """Return the client's first window, or the first client's, for what was not recorded."""
        own = [q for (c, f, _), q in self.quantiles.items() if c == client and f == field]
        if own:
            return own[0]
        return next(q for (_, f, _), q in self.quantiles.items() if f == field)


def read_servegen(lines: list[str], path: Path) -> ServeGenTrace:
    """Return the load; the file of length quantiles must stand beside.

    Raises:
        ConfigError: that file is missing, or a value is no number.

    """
    beside = path.with_name(path.name.replace("_rates", "_length_quantiles"))
    if beside == path or not beside.is_file():
        raise ConfigError(f"trace {path}: must be called *_rates.csv[.gz], with {beside} beside it")
    rates = tuple(sorted(_rate_rows(lines, path), key=lambda r: (r.at, r.client)))
    if not rates:
        raise ConfigError(f"trace {path}: must have at least one row with a rate above 0")
    return ServeGenTrace(rates, _read_quantiles(beside))


def _rate_rows(lines: list[str], path: Path) -> Iterator[RateRow]:
    for number, row in rows_of(lines, path):
        rate = number_in(row, "rate", path, number)
        if rate > 0:
            at = number_in(row, "t", path, number)
            # A window with a call or two has no law of its own: `pat` is then empty.
            law = row["pat"] or "Gamma"
            shape = number_in(row, "p1", path, number) if row["pat"] else 1.0
            yield RateRow(row["client"], at, rate, law, max(shape, 1e-3))


def _read_quantiles(path: Path) -> dict[tuple[str, str, int], Quantiles]:
    found: dict[tuple[str, str, int], Quantiles] = {}
    for number, row in rows_of(read_lines(path), path):
        window = int(number_in(row, "window", path, number))
        values = tuple(number_in(row, column, path, number) for column in _COLUMNS)
        found[row["client"], row["field"], window] = values
    for field in ("input_tokens", "output_tokens"):
        if not any(key[1] == field for key in found):
            raise ConfigError(f"trace {path}: must have rows of the field {field}")
    return found


def _one_client(row: RateRow, chance: Random) -> Iterator[tuple[float, str]]:
    if row.law == "Weibull":
        times = arrivals.weibull(row.rate_per_s, row.shape, chance)
    else:
        times = arrivals.gamma(row.rate_per_s, row.shape**-0.5, chance)
    for at in times:
        if at >= RATE_WINDOW_S:
            return
        yield row.at + at, row.client


def _at_level(quantiles: Quantiles, u: float) -> float:
    """Return the value at level u, linear between the recorded ones."""
    below, value = 0.0, quantiles[0]
    for level, upper in zip(_LEVELS, quantiles, strict=True):
        if u <= level:
            return value + (upper - value) * (u - below) / (level - below)
        below, value = level, upper
    return quantiles[-1]
