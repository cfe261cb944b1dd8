"""The `[workload]` table of a scenario: its keys, their rules, and the workload it makes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any, cast

from penstock.core.model import TokenEstimate
from penstock.core.rule import Rule, shown
from penstock.errors import ConfigError
from penstock.metrics import nearest_rank
from penstock.schema.declared import properties_of, read_params
from penstock.schema.problem import Collected, Mistakes
from penstock.sim import arrivals
from penstock.sim.calls import BUCKET_RANGE_TOKENS, Item
from penstock.sim.engine import Habits
from penstock.sim.information import (
    LEVELS,
    ClassPlan,
    Informant,
    constant_estimate,
)
from penstock.sim.params import (
    count,
    count_or_none,
    not_negative,
    one_of,
    positive,
    positive_or_none,
)
from penstock.sim.traces.registry import read_trace
from penstock.sim.traces.trace import MOST_TOKENS, Trace
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


@dataclass(frozen=True, slots=True)
class _Numbers:
    """The keys that hold one number or word each."""

    requests: int | None = count_or_none(high=MOST_REQUESTS, why="as all are held in memory")
    rate_per_s: float | None = positive_or_none(high=1e6)
    arrivals: str = one_of(*_SHAPE_KEYS)
    cv: float | None = positive_or_none(low=1e-3, high=100.0)
    on_s: float | None = positive_or_none(low=1e-3)
    off_s: float | None = positive_or_none(low=1e-3)
    period_s: float | None = positive_or_none(low=1e-3)
    amplitude: float | None = positive_or_none()
    tokens: str = one_of("loguniform")
    information: str = one_of("coarse", *(level for level in LEVELS if level != "coarse"))
    noise: float = not_negative(0.0)
    patience_s: float = positive(60.0)
    first_token_s: float | None = positive_or_none()
    refusal_s: float = not_negative(0.0)


@dataclass(frozen=True, slots=True)
class WorkloadSpec:
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

    requests: int | None = DEFAULT_REQUESTS
    rate_per_s: float | None = None
    arrivals: str = "poisson"
    cv: float | None = None
    on_s: float | None = None
    off_s: float | None = None
    period_s: float | None = None
    amplitude: float | None = None
    tokens: str = "loguniform"
    information: str = "coarse"
    noise: float = 0.0
    patience_s: float = 60.0
    first_token_s: float | None = None
    refusal_s: float = 0.0
    mix: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MIX))
    deadline_s: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_DEADLINE_S))
    prompt_tokens: TokenRange | LogNormalTokens = NO_PROMPTS
    trace: Trace | None = None
    predictions: "SampledErrors | None" = None
    stream: float = 0.0

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
            count=self.requests or DEFAULT_REQUESTS,
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


def workload_schema() -> dict[str, Any]:
    """Return the JSON Schema of the table; what its other keys hold, their readers say."""
    properties = properties_of(_Numbers) | {key: {} for key in _OTHER_KEYS}
    return {"type": "object", "properties": properties}


_OTHER_KEYS = ("mix", "deadline_s", "prompt_tokens", "stream", "trace", "predictions")


def read_workload(table: Mapping[str, Any], *, folder: Path) -> WorkloadSpec:
    """Return the workload that the table describes; files are taken from `folder`.

    Raises:
        ConfigError: a key is unknown, missing, of no use here, or has an impossible value.

    """
    readers: dict[str, Callable[[object], Any]] = {
        "mix": _mix,
        "deadline_s": _deadlines,
        "prompt_tokens": _prompt_lengths,
        "stream": _streamed_share,
        "trace": lambda value: read_trace(_file(value, "trace", folder)),
        "predictions": lambda value: _predictions(_file(value, "predictions", folder)),
    }
    found = Collected()
    values: dict[str, Any] = {}
    with found.collecting():
        numbers = read_params(_Numbers, table, where="workload", also=tuple(readers))
        values |= asdict(numbers)
    for key, read in readers.items():
        if key in table:
            with found.collecting():
                values[key] = read(table[key])
    found.refuse()
    if "trace" not in table and values["requests"] is None:
        values["requests"] = DEFAULT_REQUESTS
    spec = WorkloadSpec(**values)
    for check in _CHECKS:
        with found.collecting():
            check(spec, table)
    found.refuse()
    return spec


def _check_shape(spec: WorkloadSpec, table: Mapping[str, Any]) -> None:
    """Refuse parameters of another arrival process, and miss those of this one."""
    wrong = []
    for shape, keys in _SHAPE_KEYS.items():
        for key in keys:
            if shape == spec.arrivals and getattr(spec, key) is None:
                wrong.append(f"workload.{key}: missing: arrivals = {shape!r} needs it")
            if shape != spec.arrivals and key in table:
                wrong.append(
                    f"workload.{key} = {table[key]!r}: only for arrivals = {shape!r}, "
                    f"not {spec.arrivals!r}"
                )
    if wrong:
        raise Mistakes(wrong)


def _check_bursts(spec: WorkloadSpec, _table: Mapping[str, Any]) -> None:
    """Refuse phases so short that drawing them would take for ever."""
    if spec.arrivals == "bursts" and spec.rate_per_s and spec.on_s and spec.off_s:
        phases = 1.0 / (spec.rate_per_s * (spec.on_s + spec.off_s))
        if phases > MOST_PHASES:
            raise ConfigError(
                f"workload.on_s = {spec.on_s!r}, off_s = {spec.off_s!r}: must have at most "
                f"{MOST_PHASES} phases between two arrivals, not {phases:.0f}: at this rate_per_s "
                "nobody sees the difference to poisson"
            )


def _check_trace(spec: WorkloadSpec, table: Mapping[str, Any]) -> None:
    """Refuse keys that do nothing beside this trace, and more than it has."""
    trace = spec.trace
    if trace is None:
        return
    wrong = []
    if trace.timed and "arrivals" in table:
        wrong.append(f"workload.arrivals = {spec.arrivals!r}: the trace has its own arrival times")
    wrong += [
        f"workload.{key}: the trace has its own lengths"
        for key in ("mix", "tokens", "prompt_tokens")
        if key in table
    ]
    if trace.classes and "deadline_s" in table:
        wrong.append("workload.deadline_s: the decision log has each request's own deadline")
    if wrong:
        raise Mistakes(wrong)
    trace.check(spec.requests, spec.rate_per_s)


def _check_rate(spec: WorkloadSpec, _table: Mapping[str, Any]) -> None:
    if spec.rate_per_s is None and (spec.trace is None or not spec.trace.timed):
        raise ConfigError("workload.rate_per_s: missing: it must be a finite number > 0")


def _check_numbers(spec: WorkloadSpec, _table: Mapping[str, Any]) -> None:
    wrong = []
    if spec.amplitude is not None and spec.amplitude > 1:
        wrong.append(f"workload.amplitude = {spec.amplitude!r}: must be above 0, at most 1")
    if spec.first_token_s is not None and not spec.stream:
        wrong.append(
            f"workload.first_token_s = {spec.first_token_s!r}: only with stream = true, or nobody "
            "sees a first token"
        )
    if spec.noise >= 1:
        wrong.append(f"workload.noise = {spec.noise!r}: must be at least 0 and below 1")
    if wrong:
        raise Mistakes(wrong)


def _check_information(spec: WorkloadSpec, _table: Mapping[str, Any]) -> None:
    if spec.information == "recorded" and (spec.trace is None or not spec.trace.classes):
        raise ConfigError(
            "workload.information = 'recorded': must have a decision log as trace: no other file "
            "says what was told"
        )
    if (spec.information == "predicted") != (spec.predictions is not None):
        raise ConfigError(
            "workload.predictions: must name a file of recorded predictions if information is "
            f"'predicted', and only then (it is {spec.information!r})"
        )


_CHECKS = (
    _check_shape,
    _check_bursts,
    _check_numbers,
    _check_rate,
    _check_trace,
    _check_information,
)
"""What keys must be together: none may contradict another or do nothing."""


def _generator(spec: WorkloadSpec, chance: Random) -> Iterator[float]:
    rate = spec.rate_per_s or 1.0
    if spec.arrivals == "gamma":
        return arrivals.gamma(rate, spec.cv or 1.0, chance)
    if spec.arrivals == "bursts":
        return arrivals.bursts(rate, spec.on_s or 1.0, spec.off_s or 0.0, chance)
    if spec.arrivals == "diurnal":
        return arrivals.diurnal(rate, spec.period_s or 1.0, spec.amplitude or 0.0, chance)
    return arrivals.poisson(rate, chance)


def _mix(value: object) -> dict[str, float]:
    mix = _by_bucket(value, "mix", above_zero=False)
    total = math.fsum(mix.values())
    if abs(total - 1.0) > 1e-6:
        raise ConfigError(f"workload.mix = {mix!r}: shares must sum to 1, not {total:g}")
    return mix


def _deadlines(value: object) -> dict[str, float]:
    return DEFAULT_DEADLINE_S | _by_bucket(value, "deadline_s", above_zero=True)


def _by_bucket(value: object, key: str, *, above_zero: bool) -> dict[str, float]:
    if not isinstance(value, Mapping) or not value:
        raise ConfigError(f"workload.{key} = {value!r}: must be a table of numbers by bucket")
    rule = Rule(low=0.0, low_is_allowed=not above_zero)
    wrong = []
    for bucket, number in value.items():
        if bucket not in BUCKET_RANGE_TOKENS:
            known = ", ".join(BUCKET_RANGE_TOKENS)
            wrong.append(f"workload.{key}.{bucket}: unknown bucket: must be one of {known}")
        elif not rule.allows(number):
            wrong.append(f"workload.{key}.{bucket} = {shown(number)}: {rule}")
    if wrong:
        raise Mistakes(wrong)
    return {bucket: float(number) for bucket, number in value.items()}


@dataclass(frozen=True, slots=True)
class _LogNormal:
    median: float = positive(1000.0, low=1.0, high=MOST_TOKENS)
    sigma: float = not_negative(1.0, high=5.0)
    most: int = count(MOST_TOKENS, high=MOST_TOKENS)


def _prompt_lengths(value: object) -> TokenRange | LogNormalTokens:
    if isinstance(value, Mapping):
        drawn = read_params(_LogNormal, value, where="workload.prompt_tokens")
        return LogNormalTokens(drawn.median, drawn.sigma, drawn.most)
    pair = [value, value] if type(value) is int else value
    if not isinstance(pair, list) or len(pair) != 2 or not all(type(n) is int for n in pair):
        raise ConfigError(
            f"workload.prompt_tokens = {value!r}: must be a whole number or [lowest, highest], "
            "or a table with median, sigma, most"
        )
    low, high = pair
    if not 0 <= low <= high <= MOST_TOKENS:
        raise ConfigError(
            f"workload.prompt_tokens = {shown(value)}: must have 0 <= lowest <= highest <= "
            f"{MOST_TOKENS:,}"
        )
    return TokenRange(low, high)


def _streamed_share(value: object) -> float:
    if not isinstance(value, bool) and not Rule(low=0.0, high=1.0).allows(value):
        raise ConfigError(
            f"workload.stream = {shown(value)}: must be true or false, or a share in [0, 1]"
        )
    return float(cast("float", value))


def _predictions(path: Path) -> "SampledErrors":
    # Imported here, because a scenario seldom needs it and it brings the predictor's packages.
    from penstock.predict.sampled_errors import SampledErrors

    try:
        return SampledErrors.load(path)
    except (OSError, EOFError, TypeError, ValueError) as error:
        raise ConfigError(f"workload.predictions: {path}: cannot be used: {error}") from error


def _file(value: object, key: str, folder: Path) -> Path:
    if not isinstance(value, str) or not value:
        raise ConfigError(f"workload.{key} = {value!r}: must be the path of a file")
    path = folder / value
    if not path.is_file():
        raise ConfigError(f"workload.{key} = {value!r}: there is no such file at {path}")
    return path
