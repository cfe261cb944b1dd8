"""What each part of the page shows, as plain data ready for JSON."""

import heapq
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol, TypeVar

from penstock.core.snapshot import QueuePosition, Snapshot, WaitingGroup
from penstock.dashboard.spans import Ended, Span
from penstock.dashboard.state import LATELY_S, DashboardState, InHand
from penstock.log.explain import MOVES, REASONS, WAITS, RequestHistory

_Key = TypeVar("_Key")
TENANTS_SHOWN, SLOWEST_SHOWN, WAITING_SHOWN = 20, 30, 10
COUNTS_SHOWN = 20
RESULTS = {
    "completed": "completed in time",
    "late": "completed after the deadline",
    "failed": "failed",
    "cancelled": "cancelled by its caller, or taken on by a fallback",
}

COLUMNS = {
    "upstreams": ("upstream", "in flight #", "window #", "state", "later than predicted #"),
    "pins": ("pin", "of", "value #", "ends in #"),
    "fallbacks": ("requests #", "model", "to", "because"),
    "classes": (
        "class", "waiting #", "in flight #", "oldest #", "least slack #", "arrive #", "sent #",
        "what they wait for", "how they ended",
    ),
    "tenants": ("class", "tenant", "waiting #", "oldest #", "least slack #"),
    "turned_away": ("requests #", "status #", "path"),
    "longest_waiting": ("request", "class", "tenant", "waits #"),
    "slowest": ("request", "took #", "mostly because", "waited here #", "class", "ended"),
}  # fmt: skip
"""What the tables of *Now* are headed by, on the page and in `penstock top`; # is for numbers."""

FALLBACKS = {
    "quota": "the account was spent",
    "rate": "too many requests or tokens a minute",
    "overload": "overloaded",
    "down": "out of order",
    "late": "its deadline would have been missed",
    "context_length": "too long for the model",
}


class ViewSource(Protocol):
    """Where the page's data come from: a running scheduler, or a log.

    A log tells little of what goes on; one that inherits from this says nothing more.

    Attributes:
        state: what was counted.
        live: whether time goes on.

    """

    state: DashboardState
    live: bool = False

    def now(self) -> float:
        """Return the moment that is shown, driver seconds."""
        ...

    def snapshot(self) -> Snapshot | None:
        """Return the scheduler's state; None if there is only a log."""
        return None

    def held(self) -> Sequence[WaitingGroup] | None:
        """Return what waits by class, tenant and cause; None if there is only a log."""
        return None

    def place(self, number: int) -> QueuePosition | None:
        """Return where a waiting request stands; None if it does not wait, or in a log."""
        return None

    def whatif(self) -> Mapping[str, Any] | None:
        """Return what other configurations would have done; None if nobody has asked yet."""
        return None

    def fallbacks(self) -> Mapping[tuple[str, ...], float]:
        """Return how many requests went on elsewhere, by rule's model, target and reason."""
        return {}

    def turned_away(self) -> Mapping[tuple[str, str], float]:
        """Return how many were answered with an error and never scheduled, by path and status."""
        return {}

    def story(self, public_id: str) -> RequestHistory | None:
        """Return what happened to a request; None if nothing is known of it."""
        ...


def now_view(source: ViewSource) -> dict[str, Any]:
    """Return who waits, who flies, and how fast it goes."""
    state, now = source.state, source.now()
    lately = state.spans.since(now - LATELY_S)
    over_s = state.lately_s(now)
    held = source.held()
    rows = _held_of_log(state.in_hand.values()) if held is None else held
    return {
        "columns": COLUMNS,
        "upstreams": _upstreams(state, source.snapshot()),
        "pins": _pins(source.snapshot(), now),
        "fallbacks": _fallbacks(source.fallbacks()),
        "turned_away": [
            {"path": path, "status": status, "requests": count}
            for (path, status), count in _most(source.turned_away())
        ],
        "severity": state.severity,
        "classes": _classes(rows, state.in_hand.values(), lately, over_s, now),
        "rates_over_s": over_s,
        "longest_waiting": _longest_waiting(state, now),
        "slowest": _slowest(state, now - LATELY_S * 15),
    }


def why_view(source: ViewSource) -> dict[str, Any]:
    """Return the seconds of waiting by cause, over time and by class, and what waits now."""
    state, now = source.state, source.now()
    times, waits = state.spans.series(now, _waits_by_cause)
    if source.live and len(times) > 1:  # the last span goes on: it would seem to have few waits
        times, waits = times[:-1], {cause: values[:-1] for cause, values in waits.items()}
    total = state.spans.since(-math.inf)
    by_class: dict[str, dict[str, float]] = {}
    for (name, cause), seconds in total.waits.items():
        by_class.setdefault(name, {})[cause] = seconds
    held = source.held()
    waiting: dict[str, int] = defaultdict(int)
    for each in held or ():
        waiting[each.cause] += each.requests
    return {
        "columns": {"slowest": COLUMNS["slowest"]},
        "times": [at + state.wall_offset_s for at in times],
        "span_s": state.spans.width_s,
        "waits": {cause: waits[cause] for cause in WAITS if cause in waits},
        "by_class": by_class,
        "waiting_now": None if held is None else waiting,
        "slowest": _slowest(state, -math.inf),
    }


def window_view(source: ViewSource) -> dict[str, Any]:
    """Return every kept move of the windows with its reason, newest first."""
    state = source.state
    offset = state.wall_offset_s
    return {
        "windows": state.windows,
        "now": source.now() + offset,
        "moves": [
            {"at": at + offset, **asdict(move), "words": MOVES.get(move.because, move.because)}
            for at, move in reversed(state.moves)
        ],
    }


def predictor_view(source: ViewSource) -> dict[str, Any]:
    """Return how good the estimates were, by route, over the last replies of each."""
    figures = source.state.predictions.figures()
    return {"routes": [{"route": name, **asdict(each)} for name, each in figures.items()]}


def refusals_view(source: ViewSource) -> dict[str, Any]:
    """Return how many were refused, by class, reason and rung, and the latest."""
    state = source.state
    counts = state.spans.since(-math.inf).refused
    return {
        "counts": [
            {"traffic_class": name, "reason": reason, "rung": rung, "requests": count,
             "words": REASONS.get(reason, reason)}
            for (name, reason, rung), count in sorted(counts.items(), key=lambda item: -item[1])
        ],
        "latest": [
            {"at": at + state.wall_offset_s, "id": state.id_of(each.request.id),
             "traffic_class": each.request.traffic_class, "tenant": each.request.tenant,
             "reason": each.reason, "rung": each.why.rung,
             "cost_tokens": each.request.cost_tokens, "severity": each.why.severity,
             "waited_s": each.why.waited_s, "retry_after_s": each.retry_after_s}
            for at, each in reversed(state.refusals)
        ],
    }  # fmt: skip


def whatif_view(source: ViewSource) -> dict[str, Any]:
    """Return what other configurations would have done with the latest traffic."""
    return {"report": source.whatif()}


VIEWS: dict[str, Callable[[ViewSource], dict[str, Any]]] = {
    "now": now_view,
    "why": why_view,
    "window": window_view,
    "predictor": predictor_view,
    "refusals": refusals_view,
    "whatif": whatif_view,
}


def view(source: ViewSource, name: str) -> dict[str, Any]:
    """Return one part of the page by its name in `VIEWS`, with what every part says."""
    snapshot = source.snapshot()
    return {
        "view": name,
        "live": source.live,
        "at": source.now() + source.state.wall_offset_s,
        "draining": snapshot is not None and snapshot.draining,
        "words": {"waits": WAITS, "results": RESULTS | REASONS},
        **VIEWS[name](source),
    }


def _waits_by_cause(span: Span) -> dict[str, float]:
    found: dict[str, float] = defaultdict(float)
    for (_, cause), seconds in span.waits.items():
        found[cause] += seconds
    return found


def _pins(snapshot: Snapshot | None, now: float) -> list[dict[str, Any]]:
    return [
        {"what": pin.what, "name": pin.name, "value": pin.value, "left_s": pin.until - now}
        for pin in (() if snapshot is None else snapshot.pins)
    ]


def _most(counts: Mapping[_Key, float]) -> list[tuple[_Key, float]]:
    return heapq.nlargest(COUNTS_SHOWN, counts.items(), key=lambda item: item[1])


def _fallbacks(counts: Mapping[tuple[str, ...], float]) -> list[dict[str, Any]]:
    return [
        {
            "model": model,
            "to": to,
            "reason": reason,
            "words": FALLBACKS.get(reason, reason),
            "requests": count,
        }
        for (model, to, reason), count in _most(counts)
    ]


def _upstreams(state: DashboardState, snapshot: Snapshot | None) -> list[dict[str, Any]]:
    flying: dict[str, int] = defaultdict(int)
    for each in state.in_hand.values():
        if each.upstream:
            flying[each.upstream] += 1
    if snapshot is None:
        names = dict.fromkeys([*state.windows, *flying])
        return [
            {"name": name, "window": state.windows.get(name), "in_flight": flying[name]}
            for name in names
        ]
    by_hand_s = {pin.name: pin.until - snapshot.now for pin in snapshot.pins if pin.what == "pause"}
    return [
        {
            "name": name,
            "window": each.window,
            "in_flight": each.in_flight,
            "slowdown": each.slowdown,
            "paused_s": max(0.0, each.open_at - snapshot.now, by_hand_s.get(name, 0.0)),
            "probation": each.probation,
            "pauses": Counter(f"{pause.state}: {pause.cause}" for pause in each.pauses),
            "moved": None if each.window_moved is None else each.window_moved.because,
        }
        for name, each in snapshot.upstreams.items()
    ]


@dataclass(slots=True)
class _ClassRow:
    waiting: int = 0
    waiting_tokens: float = 0.0
    in_flight: int = 0
    arrived_at: float = math.inf
    latest_start: float = math.inf
    causes: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    tenants: dict[str, list[WaitingGroup]] = field(default_factory=lambda: defaultdict(list))


def _classes(
    held: Iterable[WaitingGroup], in_hand: Iterable[InHand], lately: Span, over_s: float, now: float
) -> list[dict[str, Any]]:
    rows: dict[str, _ClassRow] = defaultdict(_ClassRow)
    for each in held:
        row = rows[each.traffic_class]
        row.waiting += each.requests
        row.waiting_tokens += each.tokens
        row.arrived_at = min(row.arrived_at, each.arrived_at)
        row.latest_start = min(row.latest_start, each.latest_start)
        row.causes[each.cause] += each.requests
        row.tenants[each.tenant].append(each)
    for known in in_hand:
        if known.upstream:
            rows[known.request.traffic_class].in_flight += 1
    ended: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
    for (name, result), count in lately.ended.items():
        ended[name][result] += count
    names = dict.fromkeys([*rows, *lately.arrived, *ended])
    return [
        {
            "name": name,
            "waiting": rows[name].waiting,
            "waiting_tokens": rows[name].waiting_tokens,
            "in_flight": rows[name].in_flight,
            **_urgency(rows[name].arrived_at, rows[name].latest_start, now),
            "causes": rows[name].causes,
            "arrived_per_s": lately.arrived.get(name, 0) / over_s,
            "sent_per_s": lately.sent.get(name, 0) / over_s,
            "ended": ended[name],
            "tenants": _tenants(rows[name].tenants, now),
        }
        for name in sorted(names)
    ]


def _urgency(arrived_at: float, latest_start: float, now: float) -> dict[str, float | None]:
    return {
        "oldest_s": now - arrived_at if arrived_at < math.inf else None,
        "slack_s": latest_start - now if latest_start < math.inf else None,
    }


def _tenants(tenants: dict[str, list[WaitingGroup]], now: float) -> list[dict[str, Any]]:
    """Return the tenants with the most waiting; their names are the callers', so not all."""
    rows = [
        {
            "name": name,
            "waiting": sum(each.requests for each in held),
            **_urgency(
                min(each.arrived_at for each in held), min(each.latest_start for each in held), now
            ),
        }
        for name, held in tenants.items()
    ]
    if [row["name"] for row in rows] == [""]:
        return []
    return heapq.nlargest(TENANTS_SHOWN, rows, key=lambda row: row["waiting"])


def _held_of_log(in_hand: Iterable[InHand]) -> list[WaitingGroup]:
    """Return what waits at the end of a log; for what is not known there, cause "" stands."""
    found: dict[tuple[str, str], WaitingGroup] = {}
    for known in in_hand:
        request = known.request
        if known.upstream:
            continue
        key = (request.traffic_class, request.tenant)
        held = found.setdefault(key, WaitingGroup(*key, ""))
        held.requests += 1
        held.tokens += request.cost_tokens
        held.arrived_at = min(held.arrived_at, request.arrived_at)
    return list(found.values())


def _longest_waiting(state: DashboardState, now: float) -> list[dict[str, Any]]:
    waiting = (each for each in state.in_hand.values() if not each.upstream)
    oldest = heapq.nsmallest(WAITING_SHOWN, waiting, key=lambda each: each.request.arrived_at)
    return [
        {
            "id": state.id_of(each.request.id),
            "traffic_class": each.request.traffic_class,
            "tenant": each.request.tenant,
            "waited_s": now - each.request.arrived_at,
            "attempts": each.attempts,
        }
        for each in oldest
    ]


def _slowest(state: DashboardState, then: float) -> list[dict[str, Any]]:
    slowest: list[Ended] = heapq.nlargest(SLOWEST_SHOWN, state.spans.slowest_since(then))
    offset_s = state.wall_offset_s
    return [
        {
            **{name: getattr(each, name) for name in Ended.__slots__},  # asdict takes 10 times that
            "at": each.ended_at + offset_s,
            "mostly": _mostly(each),
        }
        for each in slowest
    ]


def _mostly(ended: Ended) -> str:
    """Return in words what took most of a request's time."""
    if not ended.attempts:
        return WAITS.get(ended.cause, "it was never sent")
    if ended.queued_s <= ended.latency_s / 2.0:
        return "the provider took so long"
    return WAITS.get(ended.cause, "the provider took so long")
