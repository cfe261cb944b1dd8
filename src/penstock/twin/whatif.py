"""What another configuration would have changed: the twin runs both, and says how sure it is."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penstock.core.events import Action, Dispatch, Event
from penstock.core.settings import Settings
from penstock.errors import ProtocolError
from penstock.metrics import RequestOutcome, RequestRecord
from penstock.sim.workload import Workload
from penstock.twin.history import Floats, History
from penstock.twin.model import Twin
from penstock.twin.policy import Policy
from penstock.twin.rerun import Luck, Providers, rerun, workload_of

SEEDS = (1, 2, 3)
BLOCKS = 20
RESAMPLES = 200
CONFIDENCE = 0.95
UNSEEN = 3.0
"""So many calls of all may do what none was seen to do: the rule of three (Hanley &
Lippman-Hand, JAMA 1983)."""
MOST_TENANTS = 20
FIGURES = ("met", "p50_s", "p95_s", "refused", "usd")
"""Share of deadlines met, latency percentiles of what completed, share refused, money."""

Prices = Mapping[str, tuple[float, float]]
"""USD for a token of input and of output, by upstream."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure, as it was and as it would have been.

    Attributes:
        real: what happened.
        now, then: what the twin says of the log's configuration and of the other one.
        change: then less now. low, high: its 95 % interval.

    """

    real: float
    now: float
    then: float
    change: float
    low: float
    high: float

    @property
    def sure(self) -> bool:
        """Whether the interval leaves out that nothing changes."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True, slots=True)
class Group:
    """Some calls. Attributes: kind is "all", "class" or "tenant"; figures are by name."""

    kind: str
    name: str
    calls: int
    figures: dict[str, Difference]


@dataclass(frozen=True, slots=True)
class _Rows:
    """One run, an entry for each call."""

    met: Floats
    refused: Floats
    latency: Floats
    usd: Floats


@dataclass(frozen=True, slots=True)
class Witness:
    """What one model says of the log's own configuration, with some luck."""

    tables: Providers
    luck: Luck
    seed: int
    now: _Rows


def witnesses(history: History, twin: Twin, *, prices: Prices | None = None) -> list[Witness]:
    """Run the traffic under the log's configuration: at the twin first, then at what else may be.

    Raises:
        ProtocolError: a request never ends at the twin.

    """
    models = [
        (twin.providers, twin.luck, SEEDS[0]),
        *((tables, luck, SEEDS[0]) for tables, luck in twin.others),
        *((twin.providers, {}, seed) for seed in SEEDS),
    ]
    found: list[Witness] = []
    for tables, luck, seed in models:
        workload = workload_of(history, luck)
        try:
            now = _run(history, tables, history.settings, dict(prices or {}), seed, workload)
        except ProtocolError:
            if not found:
                raise
            continue  # so slow under this load that its clock has no seconds left: no witness
        found.append(Witness(tables, luck, seed, now))
    return found


def whatif(
    history: History,
    twin: Twin,
    policy: Policy,
    *,
    prices: Prices | None = None,
    held: Sequence[Witness] | None = None,
) -> list[Group]:
    """Run the traffic at the twin under the log's configuration and under the policy's.

    Where several policies are asked, `held` is what `witnesses` said: that is the same for all.

    Each call takes as many times as long as the model says as it really did. The interval holds
    what other luck at the provider and other stretches of the traffic would give, what other models
    say that told the log as well, and how far the twin is from what really happened.

    Raises:
        ConfigError: the policy names a class or an upstream that there is not.

    Source:
        Moving stretches: Künsch's block bootstrap (1989), over blocks that do not overlap.

    """
    paid = dict(prices or {})
    settings = policy.settings(history.settings)
    pairs: list[tuple[_Rows, _Rows]] = []
    for each in witnesses(history, twin, prices=prices) if held is None else held:
        workload, after = workload_of(history, each.luck), policy.models(each.tables)
        try:
            then = _run(history, after, settings, policy.prices(paid), each.seed, workload)
        except ProtocolError:
            if not pairs:
                raise
            continue
        pairs.append((each.now, then))
    real = _rows([call.record() for call in history.calls], history, paid, _last_upstreams(history))
    ended = np.array([call.outcome is not None for call in history.calls])
    return [
        _group(kind, name, chosen & ended, real, pairs)
        for kind, name, chosen in _groups(history)
        if (chosen & ended).any()
    ]


def _run(
    history: History,
    tables: Providers,
    settings: Settings,
    prices: Prices,
    seed: int,
    workload: Workload,
) -> _Rows:
    where: dict[int, str] = {}

    def watch(_now: float, _event: Event, actions: Sequence[Action]) -> None:
        for action in actions:
            if isinstance(action, Dispatch):
                where[action.request.id] = action.upstream

    run = rerun(history, tables, settings=settings, seed=seed, workload=workload, watch=watch)
    return _rows(run.records, history, prices, where)


def _rows(
    records: Sequence[RequestRecord], history: History, prices: Prices, where: Mapping[int, str]
) -> _Rows:
    usd = np.zeros(len(records))
    for n, (record, call) in enumerate(zip(records, history.calls, strict=True)):
        if record.outcome is RequestOutcome.COMPLETED:
            price = prices.get(where.get(call.request.id, ""), (0.0, 0.0))
            usd[n] = call.prompt_tokens * price[0] + call.output_tokens * price[1]
    return _Rows(
        np.array([r.in_time for r in records], dtype=float),
        np.array([r.outcome is RequestOutcome.SHED for r in records], dtype=float),
        np.array(
            [r.latency_s if r.outcome is RequestOutcome.COMPLETED else math.nan for r in records]
        ),
        usd,
    )


def _last_upstreams(history: History) -> dict[int, str]:
    return {history.calls[a.call].request.id: a.upstream for a in history.attempts}


def _groups(history: History) -> list[tuple[str, str, np.ndarray]]:
    """Return all calls, those of each class, and those of the tenants with the most calls."""
    requests = [call.request for call in history.calls]
    found = [("all", "", np.ones(len(requests), dtype=bool))]
    for kind, names in (
        ("class", [r.traffic_class for r in requests]),
        ("tenant", [r.tenant for r in requests]),
    ):
        values, counts = np.unique(names, return_counts=True)
        order = sorted(zip(-counts, values, strict=True))[:MOST_TENANTS]
        if kind == "class" or len(values) > 1:
            found += [(kind, str(value), np.array(names) == value) for _, value in order]
    return found


def _group(
    kind: str, name: str, chosen: np.ndarray, real: _Rows, pairs: Sequence[tuple[_Rows, _Rows]]
) -> Group:
    blocks = (np.arange(int(chosen.sum())) * BLOCKS) // max(1, int(chosen.sum()))
    draws = np.random.default_rng(0).multinomial(
        BLOCKS, np.full(BLOCKS, 1.0 / BLOCKS), size=RESAMPLES
    )
    figures: dict[str, Difference] = {}
    for figure in FIGURES:
        happened = _value(real, figure, chosen)
        now, then = (_value(rows, figure, chosen) for rows in pairs[0])
        drawn = np.concatenate(
            [
                _values(other, figure, chosen, blocks, draws)
                - _values(held, figure, chosen, blocks, draws)
                for held, other in pairs
            ]
        )
        change, off = then - now, now - happened
        off = 0.0 if math.isnan(off) else off
        if figure in ("met", "refused"):
            off = math.hypot(off, UNSEEN / chosen.sum())
        low, high = _interval(drawn, change, off)
        figures[figure] = Difference(happened, now, then, change, low, high)
    return Group(kind, name, int(chosen.sum()), figures)


def _interval(drawn: Floats, change: float, off: float) -> tuple[float, float]:
    """Return the percentile interval, widened by how far the twin is off where one can see it."""
    known = drawn[~np.isnan(drawn)]
    if not len(known) or math.isnan(change):
        return math.nan, math.nan
    tail = 50.0 * (1.0 - CONFIDENCE)
    low, high = (float(v) for v in np.percentile(known, (tail, 100.0 - tail)))
    return (
        change - math.hypot(max(0.0, change - low), off),
        change + math.hypot(max(0.0, high - change), off),
    )


def _value(rows: _Rows, figure: str, chosen: np.ndarray) -> float:
    column = _column(rows, figure)[chosen]
    if figure in ("met", "refused"):
        return float(column.mean())
    if figure == "usd":
        return float(column.sum())
    known = column[~np.isnan(column)]
    q = 50 if figure == "p50_s" else 95
    return float(np.percentile(known, q, method="inverted_cdf")) if len(known) else math.nan


def _values(
    rows: _Rows, figure: str, chosen: np.ndarray, blocks: np.ndarray, draws: np.ndarray
) -> Floats:
    """Return the figure for each draw of blocks."""
    column = _column(rows, figure)[chosen]
    if figure in ("met", "refused", "usd"):
        sums = np.bincount(blocks, weights=column, minlength=BLOCKS)
        counts = np.bincount(blocks, minlength=BLOCKS)
        totals = draws @ sums
        return np.asarray(totals if figure == "usd" else totals / np.maximum(1, draws @ counts))
    known = np.flatnonzero(~np.isnan(column))
    if not len(known):
        return np.full(len(draws), math.nan)
    order = known[np.argsort(column[known], kind="stable")]
    weights = np.cumsum(draws[:, blocks[order]], axis=1)
    share = 0.5 if figure == "p50_s" else 0.95
    place = (weights < share * weights[:, -1:]).sum(axis=1).clip(0, len(order) - 1)
    return np.asarray(np.where(weights[:, -1] > 0, column[order][place], math.nan))


def _column(rows: _Rows, figure: str) -> Floats:
    return rows.latency if figure in ("p50_s", "p95_s") else getattr(rows, figure)


def plain(groups: Sequence[Group]) -> list[dict[str, Any]]:
    """Return the groups as JSON takes them; what is not known is null."""
    return [
        {
            "kind": group.kind,
            "name": group.name,
            "calls": group.calls,
            "figures": {
                figure: {
                    key: None if math.isnan(value) else value
                    for key in ("real", "now", "then", "change", "low", "high")
                    for value in (getattr(found, key),)
                }
                | {"sure": found.sure}
                for figure, found in group.figures.items()
            },
        }
        for group in groups
    ]
