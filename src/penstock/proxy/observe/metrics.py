"""What the sidecar counts. Labels here come from the configuration or from us, not from callers.

Counting is plain dictionaries, turned into Prometheus text only when scraped: a prometheus_client
counter takes a lock and two calls per increment; with a dozen of them in a request that is a tenth
of the sidecar's budget. Everything here runs on one event loop.
"""

from bisect import bisect_left
from collections import defaultdict

from penstock.core.events import Abandoned, Action, Defer, Dispatch, Reject, WindowMoved
from penstock.core.model import Request
from penstock.wire.usage import Usage

SECONDS = (
    0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip

Labels = tuple[str, ...]


class Tally:
    """Counts by labels. `add` is the hot path."""

    __slots__ = ("counts", "help", "labels", "name")

    def __init__(self, name: str, text: str, labels: Labels = ()) -> None:
        """Start at nothing."""
        self.name = name
        self.help = text
        self.labels = labels
        self.counts: defaultdict[Labels, float] = defaultdict(float)

    def add(self, *labels: str, by: float = 1.0) -> None:
        """Count."""
        self.counts[labels] += by


class Spread:
    """A histogram by labels."""

    __slots__ = ("_bounds", "help", "labels", "name", "rows")

    def __init__(self, name: str, text: str, labels: Labels, bounds: tuple[float, ...]) -> None:
        """Start at nothing."""
        self.name = name
        self.help = text
        self.labels = labels
        self._bounds = bounds
        self.rows: dict[Labels, list[float]] = {}

    def add(self, value: float, *labels: str) -> None:
        """Count a value; the row's last place is the sum."""
        row = self.rows.get(labels)
        if row is None:
            row = self.rows[labels] = [0.0] * (len(self._bounds) + 2)
        row[bisect_left(self._bounds, value)] += 1.0
        row[-1] += value

    def buckets(self, labels: Labels) -> tuple[list[tuple[str, float]], float]:
        """Return cumulative (bound, count) pairs as Prometheus wants them, and the sum."""
        row = self.rows[labels]
        total = 0.0
        pairs = []
        for bound, count in zip((*map(str, self._bounds), "+Inf"), row[:-1], strict=True):
            total += count
            pairs.append((bound, total))
        return pairs, row[-1]


class Metrics:
    """All counters."""

    def __init__(self) -> None:
        """Start at nothing."""
        self.requests = Tally(
            "penstock_requests", "Requests answered.", ("path", "traffic_class", "status")
        )
        self.outcomes = Tally(
            "penstock_outcomes", "How scheduled requests ended.", ("traffic_class", "outcome")
        )
        self.decisions = Tally(
            "penstock_decisions",
            "What the scheduler decided.",
            ("traffic_class", "rung", "decision", "reason"),
        )
        self.window_moves = Tally(
            "penstock_window_moves",
            "How often an upstream's concurrency limit moved.",
            ("upstream", "direction", "reason"),
        )
        self.attempts = Tally(
            "penstock_upstream_attempts", "Attempts by how they ended.", ("upstream", "outcome")
        )
        self.tokens = Tally(
            "penstock_output_tokens",
            "Output tokens of complete replies: predicted (p50) and real.",
            ("traffic_class", "kind"),
        )
        self.usage = Tally("penstock_usage_source", "Where real counts came from.", ("source",))
        self.reading_faults = Tally(
            "penstock_reading_faults",
            "Bytes that could not be read along; they were relayed all the same.",
            ("reader",),
        )
        self.ignored_hints = Tally(
            "penstock_ignored_hints",
            "Requests with x-penstock-* headers that are no hints; their answers name them.",
        )
        self.fallbacks = Tally(
            "penstock_fallbacks",
            "Requests that went on to another model or tier; as [[fallbacks]] names them.",
            ("model", "to", "reason"),
        )
        self.queue = Spread(
            "penstock_queue_seconds", "From arrival to dispatch.", ("traffic_class",), SECONDS
        )
        self.first_token = Spread(
            "penstock_first_token_seconds", "From dispatch to first token.", ("upstream",), SECONDS
        )
        self.duration = Spread(
            "penstock_request_seconds", "From arrival to the end.", ("traffic_class",), SECONDS
        )

    @property
    def tallies(self) -> tuple[Tally, ...]:
        """All counters."""
        return (
            self.requests, self.outcomes, self.decisions, self.window_moves, self.attempts,
            self.tokens, self.usage, self.reading_faults, self.ignored_hints,
            self.fallbacks,
        )  # fmt: skip

    @property
    def spreads(self) -> tuple[Spread, ...]:
        """All histograms."""
        return (self.queue, self.first_token, self.duration)

    def settled(self, request: Request, usage: Usage) -> None:
        """Count what a complete reply took."""
        self.usage.add(usage.source)
        if usage.output_tokens is not None:
            name = request.traffic_class
            self.tokens.add(name, "real", by=usage.output_tokens)
            self.tokens.add(name, "predicted", by=request.estimate.p50_tokens)

    def action(self, now: float, action: Action) -> None:
        """Count a decision."""
        if isinstance(action, WindowMoved):
            direction = "up" if action.after > action.before else "down"
            self.window_moves.add(action.upstream, direction, action.because)
            return
        name = action.request.traffic_class
        if isinstance(action, Dispatch):
            why = action.why
            self.decisions.add(name, why.rung, "dispatch", why.longest_wait or "nothing")
            self.queue.add(why.waited_s, name)
        elif isinstance(action, Abandoned):
            why = action.why
            self.decisions.add(name, why.rung, "abandoned", why.longest_wait or "nothing")
        elif isinstance(action, Defer):
            self.decisions.add(name, action.why.rung, "defer", "overload")
        elif isinstance(action, Reject):
            self.decisions.add(name, action.why.rung, "reject", action.reason)
