"""Penstock's own decision log as a trace: yesterday's traffic, for another policy.

Only the lines that say what arrived and how long it really was are read; the log's format is
docs/reference/decision-log.md, version 1. (The reader in `runtime` replays decisions exactly; a
simulation needs the traffic alone, and drivers do not import each other.)
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from penstock.core.model import TokenEstimate, TrafficClass
from penstock.core.rule import Rule
from penstock.errors import ConfigError
from penstock.sim.calls import Item, Knowledge
from penstock.sim.traces.log_lines import COUNT, NUMBER, LogLine, lines_of, or_inf
from penstock.sim.traces.trace import MOST_TOKENS, RowTrace

HEADER_KEY = "penstock_decision_log"
MOST_GAP_S = 60.0
"""Between two runs no more time is kept: a night without traffic need not be simulated."""
_VERSION = 1
_OPTIONAL = Rule(optional=True)
_COUNT_OR_NONE = Rule(low=0, high=MOST_TOKENS, whole=True, optional=True)
_P50 = Rule(low=1, high=MOST_TOKENS)
_WEIGHT = Rule(low=1e-6, high=1e6)
_SPAN_OR_NONE = Rule(low=0, low_is_allowed=False, optional=True)
_ID = Rule(low=0, whole=True)
_QUEUE = Rule(low=1, whole=True)


@dataclass(slots=True)
class _LoggedRun:
    """What one run of penstock saw; its clock and its requests' numbers are its own.

    Attributes:
        wall_s: what to add to its clock for seconds since 1970; None if the header does not say.
        last_at: the last time that a line of it speaks of, by its clock.

    """

    name: str | None
    wall_s: float | None
    classes: list[TrafficClass]
    arrived: dict[int, Item] = field(default_factory=dict)
    last_at: float = 0.0

    def take(self, line: LogLine) -> None:
        """Keep what the line says of the traffic."""
        self.last_at = max(self.last_at, line.number_of("now", NUMBER, default=self.last_at))
        if line.table.get("event") == "arrived":
            request = line.inner("request")
            self.arrived[request.number_of("id", _ID)] = _item(request)
        elif line.table.get("event") == "completed":
            item = self.arrived.get(line.number_of("request_id", _ID))
            tokens = line.number_of("output_tokens", _COUNT_OR_NONE)
            if item is not None and tokens is not None:
                item.output_tokens = tokens

    def items(self) -> list[Item]:
        """Return the calls in order of time, by the run's clock."""
        return sorted(self.arrived.values(), key=lambda item: item.at)


def read_decision_log(lines: list[str], path: Path) -> RowTrace:
    """Return the traffic of all the log's runs, one after the other.

    Between two runs the time by the calendar is kept, up to a minute; where the headers do not
    tell it, a run begins where the one before ended. A request that never got a whole reply
    (refused, failed, cancelled) is as long as was predicted, or it would be missing from the load
    that another policy has to bear.

    Raises:
        ConfigError: a line is no record or has an impossible value, the version is not ours, or
            no request is in the log.

    """
    runs = [run for run in _runs(lines_of(lines, path)) if run.arrived]
    if not runs:
        raise ConfigError(f"trace {path}: must have at least one request that arrived")
    rows = tuple(_one_after_the_other(runs))
    return RowTrace(rows, classes=_classes(runs, rows))


def _runs(lines: Iterable[LogLine]) -> list[_LoggedRun]:
    runs: list[_LoggedRun] = []
    for line in lines:
        if HEADER_KEY in line.table or not runs:
            if line.table.get(HEADER_KEY) != _VERSION:
                raise line.error(HEADER_KEY, f"must be {_VERSION}")
            run = _run(line)
            # A log that was rotated, and put together again, names a run more than once.
            if not runs or run.name is None or run.name != runs[-1].name:
                runs.append(run)
        else:
            runs[-1].take(line)
    return runs


def _run(header: LogLine) -> _LoggedRun:
    name = header.table.get("run")
    started_unix_s = header.number_of("started_unix_s", _OPTIONAL)
    started_at = header.number_of("started_at", _OPTIONAL)
    known = started_unix_s is not None and started_at is not None
    wall_s = started_unix_s - started_at if known else None
    tables: list[LogLine] = []
    if header.table.get("settings") is not None:
        tables = header.inner("settings").inner_list("classes")
    return _LoggedRun(name if isinstance(name, str) else None, wall_s, [_class(t) for t in tables])


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
    if before.wall_s is None or run.wall_s is None:
        gap_s = before.last_at - last
    else:
        gap_s = (run.wall_s + first) - (before.wall_s + last)
    return min(MOST_GAP_S, max(0.0, gap_s))


def _item(request: LogLine) -> Item:
    stated = request.inner("estimate")
    p50 = stated.number_of("p50_tokens", _P50)
    p90 = stated.number_of(
        "p90_tokens", Rule(low=p50, high=MOST_TOKENS, why="its p50_tokens or more")
    )
    estimate = TokenEstimate(p50, p90, "recorded")
    at = request.number_of("arrived_at", NUMBER)
    deadline_s = or_inf(request.number_of("deadline", _OPTIONAL)) - at
    return Item(
        at=at,
        output_tokens=round(p50),
        prompt_tokens=request.number_of("prompt_tokens", COUNT, default=0),
        session=request.text_of("session", default=""),
        deadline_s=deadline_s,
        tenant=request.text_of("tenant", default=""),
        recorded=Knowledge(request.text_of("traffic_class", empty=False), estimate, deadline_s),
    )


def _classes(runs: list[_LoggedRun], rows: tuple[Item, ...]) -> tuple[TrafficClass, ...]:
    """Return the classes as the newest run with each of them had it, then those merely seen."""
    known = {each.name: each for run in runs for each in run.classes}
    seen = dict.fromkeys(row.recorded.traffic_class for row in rows if row.recorded)
    return (*known.values(), *(TrafficClass(name) for name in seen if name not in known))


def _class(table: LogLine) -> TrafficClass:
    return TrafficClass(
        table.text_of("name", empty=False),
        weight=table.number_of("weight", _WEIGHT, default=1.0),
        deadline_s=or_inf(table.number_of("deadline_s", _SPAN_OR_NONE)),
        queue_limit=table.number_of("queue_limit", _QUEUE, default=100_000),
        queue_limit_tokens=or_inf(table.number_of("queue_limit_tokens", _SPAN_OR_NONE)),
    )
