"""Penstock's own decision log as a trace: yesterday's traffic, for another policy."""

import logging
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

from penstock.core.events import Arrived, Completed
from penstock.core.model import Request, TrafficClass
from penstock.errors import ConfigError
from penstock.log.format import Header, LogRecord
from penstock.log.reader import LogError, parse_log
from penstock.sim.calls import Item, Knowledge
from penstock.sim.traces.trace import MOST_TOKENS, RowTrace

logger = logging.getLogger("penstock.traces")

HEADER_KEY = "penstock_decision_log"
MOST_GAP_S = 60.0
"""Between two runs no more time is kept: a night without traffic need not be simulated."""


@dataclass(slots=True)
class _LoggedRun:
    """What one run of penstock saw; its clock and its requests' numbers are its own."""

    header: Header
    arrived: dict[int, Item] = field(default_factory=dict)

    @property
    def wall_s(self) -> float:
        """What to add to its clock for seconds since 1970."""
        return self.header.started_unix_s - self.header.started_at

    def take(self, record: LogRecord) -> None:
        """Keep what the record says of the traffic.

        Raises:
            ValueError: a number is none that a call can have.

        """
        what = record.what
        if isinstance(what, Arrived):
            self.arrived[what.request.id] = _item(what.request)
        elif isinstance(what, Completed) and what.output_tokens is not None:
            item = self.arrived.get(what.request_id)
            if item is not None:
                item.output_tokens = _tokens("output_tokens", what.output_tokens)

    def items(self) -> list[Item]:
        """Return the calls in order of time, by the run's clock."""
        return sorted(self.arrived.values(), key=lambda item: item.at)


def read_decision_log(lines: list[str], path: Path) -> RowTrace:
    """Return the traffic of all the log's runs, one after the other.

    Between two runs the time by the calendar is kept, up to a minute. A request that never got a
    whole reply (refused, failed, cancelled) is as long as was predicted, or it would be missing
    from the load that another policy has to bear.

    Raises:
        ConfigError: a line is no record or has an impossible value, the version is not ours, or
            no request is in the log.

    """
    runs: list[_LoggedRun] = []
    text = "".join(line + "\n" for line in lines)
    try:
        for record in parse_log(text.encode(), path, on_cut=_pass_over):
            # A log that was rotated, and put together again, names a run more than once.
            if not runs or record.header.run != runs[-1].header.run:
                runs.append(_LoggedRun(record.header))
            runs[-1].take(record)
    except LogError as error:
        raise ConfigError(f"trace {error}") from error
    except ValueError as error:
        raise ConfigError(f"trace {path}: {error}") from error
    runs = [run for run in runs if run.arrived]
    if not runs:
        raise ConfigError(f"trace {path}: must have at least one request that arrived")
    rows = tuple(_one_after_the_other(runs))
    return RowTrace(rows, classes=_classes(runs, rows))


def _pass_over(path: Path, number: int) -> None:
    logger.warning("trace %s: its last line, %d, is cut off and was passed over", path, number)


def _one_after_the_other(runs: list[_LoggedRun]) -> Iterable[Item]:
    """Yield the calls of all runs, in order of time, from 0."""
    end, before = 0.0, None
    for run in runs:
        items = run.items()
        first, last = items[0].at, items[-1].at
        start = end
        if before is not None:
            start += _gap_s(before, run, first)
        for item in items:
            yield item.moved_to(start + item.at - first)
        end, before = start + last - first, run


def _gap_s(before: _LoggedRun, run: _LoggedRun, first: float) -> float:
    """Return the seconds from the last arrival of one run to the first of the next."""
    last = before.items()[-1].at
    gap_s = (run.wall_s + first) - (before.wall_s + last)
    return min(MOST_GAP_S, max(0.0, gap_s))


def _item(request: Request) -> Item:
    at, estimate = request.arrived_at, request.estimate
    if not math.isfinite(at) or math.isnan(request.deadline):
        raise ValueError(f"request {request.id}: arrived_at and deadline must be finite numbers")
    return Item(
        at=at,
        output_tokens=_tokens("estimate.p50_tokens", round(estimate.p50_tokens)),
        prompt_tokens=_tokens("prompt_tokens", request.prompt_tokens),
        session=request.session,
        deadline_s=request.deadline - at,
        tenant=request.tenant,
        recorded=Knowledge(
            request.traffic_class, replace(estimate, source="recorded"), request.deadline - at
        ),
    )


def _tokens(key: str, count: int) -> int:
    if not 0 <= count <= MOST_TOKENS:
        raise ValueError(f"{key} = {count}: must be a whole number from 0 to {MOST_TOKENS:,}")
    return count


def _classes(runs: list[_LoggedRun], rows: tuple[Item, ...]) -> tuple[TrafficClass, ...]:
    """Return the classes as the newest run with each of them had it, then those merely seen."""
    settings = (run.header.settings for run in runs)
    known = {each.name: each for found in settings if found for each in found.classes}
    seen = dict.fromkeys(row.recorded.traffic_class for row in rows if row.recorded)
    return (*known.values(), *(TrafficClass(name) for name in seen if name not in known))
