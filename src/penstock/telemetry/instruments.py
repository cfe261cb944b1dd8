"""What is measured: the conventions' histograms, and counts of ours that cost a dictionary."""

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol
from weakref import WeakKeyDictionary

from opentelemetry.metrics import (
    CallbackOptions,
    Histogram,
    Meter,
    MeterProvider,
    Observation,
)

from penstock.telemetry.conventions import (
    EMBEDDINGS,
    INFERENCE,
    SECONDS,
    TOKEN_TYPE,
    TOKENS,
    Opted,
)

Labels = tuple[tuple[str, str | int], ...]
"""Pairs, which are hashed as they are: a dictionary would cost more than the sum that it names."""
MOST_SERIES = 2000
"""Of one name; the SDK's own bound, and its own word for what is beyond."""
BEYOND: Labels = (("otel.metric.overflow", True),)


class Recorder(Protocol):
    """A histogram."""

    def record(self, amount: float, labels: Labels) -> None:
        """Count a value."""
        ...


Make = Callable[[str, str, str, tuple[float, ...]], Recorder]


class Sums:
    """Sums by labels, read when somebody collects them."""

    def __init__(self) -> None:
        """Start at nothing."""
        self._sums: defaultdict[Labels, float] = defaultdict(float)
        self._lock = threading.Lock()

    def add(self, amount: float, labels: Labels) -> None:
        """Add; from any thread."""
        with self._lock:
            if len(self._sums) >= MOST_SERIES and labels not in self._sums:
                labels = BEYOND
            self._sums[labels] += amount

    def put(self, value: float, labels: Labels) -> None:
        """Replace what is there."""
        with self._lock:
            self._sums[labels] = value

    def clear(self) -> None:
        """Start afresh, in a forked child; a thread of the parent may have held the lock."""
        self._lock = threading.Lock()
        self._sums.clear()

    def observed(self, _options: CallbackOptions) -> Iterable[Observation]:
        """Return what is there, for a collection."""
        with self._lock:
            return [Observation(value, dict(labels)) for labels, value in self._sums.items()]


class Instruments:
    """The instruments of one meter provider, shared by all that report to it."""

    def __init__(self, meter: Meter, names: Opted, make: "Make | None" = None) -> None:
        """Make them; histograms by `make`, or by the meter."""
        self._meter = meter
        self._names = names
        self._make = make or _of_sdk(meter)
        self.histograms: dict[str, Recorder] = {}
        self._took: dict[str, list[Recorder]] = {}
        self.queue = self._seconds("penstock.queue.duration", "From arrival to first dispatch.")
        self.attempts = self._counter("penstock.attempts", "{attempt}", "Attempts, by their end.")
        self.refusals = self._counter("penstock.refusals", "{request}", "Requests refused here.")
        self.deferrals = self._counter("penstock.deferrals", "{deferral}", "Requests held back.")
        self.in_flight = self._level("penstock.in_flight", "Requests in flight.")
        self.backlog = self._level("penstock.backlog", "Requests waiting.")
        self.window = Sums()
        meter.create_observable_gauge(
            "penstock.window", [self.window.observed], "{request}", "Requests allowed in flight."
        )
        usage = "gen_ai.client.inference.usage"
        self._used = {
            kind: self._counter(f"{usage}.{kind}_tokens", "{token}", "Tokens used.")
            for kind in (("input", "output", "cache_read.input") if names.new else ())
        }

    def took(self, operation: str, duration_s: float, labels: Labels) -> None:
        """Note how long an operation took; `error.type` among its labels if it did not succeed."""
        found = self._took.get(operation)
        if found is None:
            text = "How long an operation took, retries and waits included."
            listed = self._named(operation, "duration")
            found = self._took[operation] = [self._seconds(name, text) for name in listed]
        for each in found:
            each.record(duration_s, labels)

    def first_chunk(self, operation: str, after_s: float, labels: Labels) -> None:
        """Note when the first piece of a streamed reply came, from the operation's start."""
        for name in self._named(operation, "time_to_first_chunk", inference_only=True):
            self._seconds(name, "From an operation's start to the first piece.").record(
                after_s, labels
            )

    def used(self, operation: str, kind: str, count: int, labels: Labels) -> None:
        """Note how many tokens a reply used, of the kind input, output or cache_read.input."""
        cached = kind == "cache_read.input"
        if self._names.old and not cached:
            self._tokens("gen_ai.client.token.usage").record(count, (*labels, (TOKEN_TYPE, kind)))
        if not self._names.new:
            return
        if operation in INFERENCE:
            self._used[kind].add(count, labels)
            if not cached:
                name = f"gen_ai.client.inference.operation.{kind}_tokens"
                self._tokens(name).record(count, labels)
        elif operation == EMBEDDINGS and kind == "input":
            self._tokens("gen_ai.client.embeddings.operation.input_tokens").record(count, labels)

    def forked(self) -> None:
        """Forget what the parent has in flight."""
        self.in_flight.clear()
        self.backlog.clear()

    def _named(self, operation: str, what: str, *, inference_only: bool = False) -> Iterator[str]:
        """Yield the metric's old name and its new one; where there is no new one, the old."""
        group = "operation"
        if operation in INFERENCE:
            group = "inference"
        elif operation == EMBEDDINGS and not inference_only:
            group = "embeddings"
        if self._names.old or group == "operation":
            yield f"gen_ai.client.operation.{what}"
        if self._names.new and group != "operation":
            yield f"gen_ai.client.{group}.{what}"

    def _seconds(self, name: str, text: str) -> Recorder:
        return self.histograms.get(name) or self._made(name, "s", text, SECONDS)

    def _tokens(self, name: str) -> Recorder:
        found = self.histograms.get(name)
        return found or self._made(name, "{token}", "Tokens of one operation.", TOKENS)

    def _made(self, name: str, unit: str, text: str, bounds: tuple[float, ...]) -> Recorder:
        made = self._make(name, unit, text, bounds)
        return self.histograms.setdefault(name, made)

    def _counter(self, name: str, unit: str, text: str) -> Sums:
        sums = Sums()
        self._meter.create_observable_counter(name, [sums.observed], unit, text)
        return sums

    def _level(self, name: str, text: str) -> Sums:
        sums = Sums()
        self._meter.create_observable_up_down_counter(name, [sums.observed], "{request}", text)
        return sums


_MADE: WeakKeyDictionary[MeterProvider, Instruments] = WeakKeyDictionary()


def instruments_of(provider: MeterProvider, names: Opted, make: Make | None = None) -> Instruments:
    """Return the provider's instruments; an SDK keeps one callback of an instrument's name."""
    found = _MADE.get(provider)
    if found is None:
        found = _MADE[provider] = Instruments(provider.get_meter("penstock"), names, make)
    return found


class _OfSdk:
    """A histogram of a meter."""

    def __init__(self, histogram: Histogram) -> None:
        self._histogram = histogram

    def record(self, amount: float, labels: Labels) -> None:
        self._histogram.record(amount, dict(labels))


def _of_sdk(meter: Meter) -> Make:
    def make(name: str, unit: str, text: str, bounds: tuple[float, ...]) -> Recorder:
        return _OfSdk(
            meter.create_histogram(name, unit, text, explicit_bucket_boundaries_advisory=bounds)
        )

    return make
