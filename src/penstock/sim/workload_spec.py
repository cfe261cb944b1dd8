"""The `[workload]` table of a scenario: its keys, their rules, and the workload it makes."""

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    Field,
    PlainValidator,
    ValidationInfo,
    WithJsonSchema,
)
from pydantic_core import PydanticCustomError

from penstock.core.model import TokenEstimate
from penstock.core.rule import Rule
from penstock.metrics import nearest_rank
from penstock.schema.problem import Mistakes
from penstock.schema.reading import read_params
from penstock.schema.types import COMPLAINTS, Complaints, Table, ruled
from penstock.sim import arrivals
from penstock.sim.calls import BUCKET_RANGE_TOKENS, Item
from penstock.sim.engine import Habits
from penstock.sim.information import ClassPlan, Informant, constant_estimate
from penstock.sim.params import count, not_negative, positive
from penstock.sim.traces.registry import Trace, read_trace
from penstock.sim.traces.trace import MOST_TOKENS
from penstock.sim.workload import (
    NO_PROMPTS,
    LogNormalTokens,
    TokenRange,
    Workload,
    build_workload,
    drawn_items,
    stream_of,
)

if TYPE_CHECKING:
    from penstock.predict.sampled_errors import SampledErrors

DEFAULT_REQUESTS = 400
MOST_REQUESTS = 10_000_000
MOST_PHASES = 1000
"""Phases of a burst between two arrivals: each is drawn, and more would seem to hang."""
DEFAULT_MIX = {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1}
DEFAULT_DEADLINE_S = {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0}
_SHAPE_KEYS: dict[str, tuple[str, ...]] = {
    "poisson": (),
    "gamma": ("cv",),
    "bursts": ("on_s", "off_s"),
    "diurnal": ("period_s", "amplitude"),
}


def _bucket(name: str) -> str:
    if name not in BUCKET_RANGE_TOKENS:
        raise ValueError(f"must be one of {', '.join(BUCKET_RANGE_TOKENS)}")
    return name


Bucket = Annotated[
    str,
    AfterValidator(_bucket),
    WithJsonSchema({"type": "string", "enum": list(BUCKET_RANGE_TOKENS)}),
]


class _LogNormal(Table):
    median: float = positive(1000.0, low=1.0, high=MOST_TOKENS)
    sigma: float = not_negative(1.0, high=5.0)
    most: int = count(MOST_TOKENS, high=MOST_TOKENS)


def _prompt_lengths(value: object) -> TokenRange | LogNormalTokens:
    if isinstance(value, Mapping):
        try:
            drawn = read_params(_LogNormal, value, where="")
        except Mistakes as mistakes:
            found = {"found": mistakes.problems}
            raise PydanticCustomError(COMPLAINTS, "no lengths", found) from None
        return LogNormalTokens(drawn.median, drawn.sigma, drawn.most)
    pair = [value, value] if type(value) is int else value
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int for n in pair):
        raise ValueError(
            "must be a whole number or [lowest, highest], or a table with median, sigma, most"
        )
    low, high = pair
    if not 0 <= low <= high <= MOST_TOKENS:
        raise ValueError(f"must have 0 <= lowest <= highest <= {MOST_TOKENS:,}")
    return TokenRange(low, high)


def _streamed_share(value: object) -> float:
    if not isinstance(value, bool) and not Rule(low=0.0, high=1.0).allows(value):
        raise ValueError("must be true or false, or a share in [0, 1]")
    return float(value)  # type: ignore[arg-type]  # a number, or the rule would not allow it


def _file(value: object, info: ValidationInfo) -> Path:
    if not isinstance(value, str) or not value:
        raise ValueError("must be the path of a file")
    path: Path = (info.context or {}).get("folder", Path()) / value
    if not path.is_file():
        raise ValueError(f"there is no such file at {path}")
    return path


def _trace(value: object, info: ValidationInfo) -> Trace:
    return read_trace(_file(value, info))


def _predictions(value: object, info: ValidationInfo) -> "SampledErrors":
    # Imported here, because a scenario seldom needs it and it brings the predictor's packages.
    from penstock.predict.sampled_errors import SampledErrors

    path = _file(value, info)
    try:
        return SampledErrors.load(path)
    except (OSError, EOFError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: cannot be used: {error}") from error


_PATH = WithJsonSchema({"type": "string"})


class WorkloadSpec(Table):
    """What arrives, in every seed's own draw.

    Attributes:
        requests: how many; None takes a whole trace.
        rate_per_s: mean arrivals a second; a trace is stretched to it.
        arrivals: poisson, gamma (with `cv`), bursts (with `on_s`, `off_s`: mean lengths of the
            phases) or diurnal (with `period_s`, `amplitude` in (0, 1]).
        mix: share of each bucket. deadline_s: seconds from submission, by bucket.
        information, noise: what the scheduler is told (`sim.information`).
        prompt_tokens: the prompts' lengths.
        trace: arrivals and lengths from a recording, in place of generators.
        predictions: recorded predictions, for the information level `predicted`.
        stream: the share of the calls that are read as they come, so that first tokens are seen.
        patience_s: how long clients wait on a reply that has stopped.
        first_token_s: how long streaming clients wait for a first token; None for ever.
        refusal_s: mean time until a client hears of a refusal.

    """

    requests: int | None = count(None, high=MOST_REQUESTS, why="as all are held in memory")
    rate_per_s: Annotated[float | None, Field(examples=[1.0])] = positive(None, high=1e6)
    arrivals: Literal["poisson", "gamma", "bursts", "diurnal"] = "poisson"
    cv: float | None = positive(None, low=1e-3, high=100.0)
    on_s: float | None = positive(None, low=1e-3)
    off_s: float | None = positive(None, low=1e-3)
    period_s: float | None = positive(None, low=1e-3)
    amplitude: float | None = positive(None, high=1.0)
    tokens: Literal["loguniform"] = "loguniform"
    information: Literal["coarse", "none", "class", "oracle", "predicted", "recorded"] = "coarse"
    noise: float = ruled(Rule(low=0.0, high=1.0, high_is_allowed=False), 0.0)
    patience_s: float = positive(60.0)
    first_token_s: float | None = positive(None)
    refusal_s: float = not_negative(0.0)
    mix: dict[Bucket, Annotated[float, ruled(Rule(low=0.0, high=1.0))]] = DEFAULT_MIX
    deadline_s: Annotated[
        dict[Bucket, Annotated[float, ruled(Rule(low=0.0, low_is_allowed=False))]],
        AfterValidator(lambda given: DEFAULT_DEADLINE_S | given),
    ] = DEFAULT_DEADLINE_S
    prompt_tokens: Annotated[Any, PlainValidator(_prompt_lengths), WithJsonSchema({})] = NO_PROMPTS
    stream: Annotated[float, PlainValidator(_streamed_share), WithJsonSchema({})] = 0.0
    trace: Annotated[Any, PlainValidator(_trace), _PATH] = None
    predictions: Annotated[Any, PlainValidator(_predictions), _PATH] = None

    def complaints(self) -> Complaints:
        """Yield keys that contradict each other, do nothing beside others, or are missing."""
        yield from self._of_arrivals()
        yield from self._of_trace()
        if abs(math.fsum(self.mix.values()) - 1.0) > 1e-6:
            yield "mix", f"shares must sum to 1, not {math.fsum(self.mix.values()):g}"
        if self.first_token_s is not None and not self.stream:
            yield "first_token_s", "only with stream = true, or nobody sees a first token"
        if self.information == "recorded" and (self.trace is None or not self.trace.classes):
            rule = "must have a decision log as trace: no other file says what was told"
            yield "information", rule
        if self.information == "predicted" and self.predictions is None:
            yield "information", "must have a file of recorded predictions as predictions"
        if self.information != "predicted" and self.predictions is not None:
            yield "predictions", f"only for information = 'predicted', not {self.information!r}"

    def _of_arrivals(self) -> Complaints:
        if self.rate_per_s is None and (self.trace is None or not self.trace.timed):
            yield "rate_per_s", "is missing: it must be a finite number > 0"
        for shape, keys in _SHAPE_KEYS.items():
            for key in keys:
                given = key in self.model_fields_set
                if shape == self.arrivals and not given:
                    yield "arrivals", f"needs {key}"
                if shape != self.arrivals and given:
                    yield key, f"only for arrivals = {shape!r}, not {self.arrivals!r}"
        if self.arrivals == "bursts" and self.rate_per_s and self.on_s and self.off_s:
            phases = 1.0 / (self.rate_per_s * (self.on_s + self.off_s))
            if phases > MOST_PHASES:
                rule = (
                    f"must have at most {MOST_PHASES} phases between two arrivals, not "
                    f"{phases:.0f}: at this rate_per_s nobody sees the difference to poisson"
                )
                yield "on_s", rule

    def _of_trace(self) -> Complaints:
        """Yield keys that do nothing beside this trace, and more than it has."""
        trace = self.trace
        if trace is None:
            return
        if trace.timed and "arrivals" in self.model_fields_set:
            yield "arrivals", "the trace has its own arrival times"
        for key in ("mix", "tokens", "prompt_tokens"):
            if key in self.model_fields_set:
                yield key, "the trace has its own lengths"
        if trace.classes and "deadline_s" in self.model_fields_set:
            yield "deadline_s", "the decision log has each request's own deadline"
        yield from trace.complaints(self.requests, self.rate_per_s)

    @property
    def calls(self) -> int | None:
        """How many requests arrive; None for as many as the trace has."""
        return DEFAULT_REQUESTS if self.requests is None and self.trace is None else self.requests

    def habits(self) -> Habits:
        """Return how the clients read."""
        first_s = math.inf if self.first_token_s is None else self.first_token_s
        return Habits(
            stream=self.stream,
            patience_s=self.patience_s,
            first_token_s=first_s,
            refusal_s=self.refusal_s,
        )

    def informant(self, classes: Sequence[ClassPlan]) -> Informant:
        """Return what tells the scheduler about each request."""
        return Informant(
            self.information,
            noise=self.noise,
            classes=classes,
            deadline_s=self.deadline_s,
            constant=self._constant(),
            sampled=self.predictions,
            recorded=() if self.trace is None else self.trace.classes,
        )

    def build(self, seed: int, classes: Sequence[ClassPlan]) -> Workload:
        """Return the workload of this seed; the same one for every policy."""
        return build_workload(
            self._items(seed), self.informant(classes), deadline_s=self.deadline_s, seed=seed
        )

    def _items(self, seed: int) -> Iterator[Item]:
        if self.trace is not None:
            times = self._times(seed) if not self.trace.timed else None
            items = self.trace.items(
                stream_of(seed, "trace"),
                count=self.requests,
                rate_per_s=self.rate_per_s,
                times=times,
            )
            return islice(items, self.requests)
        return drawn_items(
            self._times(seed),
            count=self.calls or 0,
            mix=self.mix,
            seed=seed,
            prompt_tokens=self.prompt_tokens,
        )

    def _times(self, seed: int) -> Iterator[float]:
        return _generator(self, stream_of(seed, "arrivals"))

    def _constant(self) -> TokenEstimate:
        if self.trace is None:
            return constant_estimate(self.mix)
        lengths = sorted(max(1, n) for n in self.trace.lengths())
        p50, p90 = nearest_rank(lengths, 50), nearest_rank(lengths, 90)
        return TokenEstimate(p50 or 1.0, p90 or 1.0, "constant")


def _generator(spec: WorkloadSpec, chance: Random) -> Iterator[float]:
    rate = spec.rate_per_s or 1.0
    if spec.arrivals == "gamma":
        return arrivals.gamma(rate, spec.cv or 1.0, chance)
    if spec.arrivals == "bursts":
        return arrivals.bursts(rate, spec.on_s or 1.0, spec.off_s or 0.0, chance)
    if spec.arrivals == "diurnal":
        return arrivals.diurnal(rate, spec.period_s or 1.0, spec.amplitude or 0.0, chance)
    return arrivals.poisson(rate, chance)
