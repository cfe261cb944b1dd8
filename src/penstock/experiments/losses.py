"""Where another policy is better than the one that we recommend.

No table should have to be read for what its author would rather not say.
"""

from dataclasses import asdict, dataclass

from penstock.experiments.results import Cell, Results
from penstock.experiments.statistics import mean_of
from penstock.experiments.tables import SHARES, SHOWN, Column, ResultTable, number

OURS = {
    "policies": "full",
    "overload": "cost_ladder",
    "information": "coarse",
    "ablation": "full",
}
"""The variant that stands for our advice, by experiment."""
_NOT_A_RIVAL = {("information", "oracle")}
_GOOD_IF_LOW = ("short_p95_s", "p95_s", "makespan_s")
LEAST_GAIN = 0.02
_HEADINGS = dict(SHOWN)


@dataclass(frozen=True, slots=True)
class Loss:
    """One figure in which a rival is better, beyond the noise of the seeds."""

    experiment: str
    regime: str
    rival: str
    figure: str
    theirs: float
    ours: float


def losses(results: Results) -> list[Loss]:
    """Return every figure in which a rival beats our advice, in the order of the tables."""
    return [
        Loss(name, regime, variant.label, figure, theirs.mean(figure), mine.mean(figure))
        for name, ours in OURS.items()
        if name in results.experiments
        for regime in results.regimes(name)
        for mine in (results.cell(name, regime, ours),)
        for variant in results.experiments[name].variants
        if variant.name != ours and (name, variant.name) not in _NOT_A_RIVAL
        for theirs in (results.cell(name, regime, variant.name),)
        for figure, _ in SHOWN
        if is_better(theirs, mine, figure)
    ]


def is_better(theirs: Cell, ours: Cell, figure: str) -> bool:
    """Return whether they are better by 2 % and by more than the seeds can explain.

    Both ran the same draws, so the differences are taken seed by seed.
    """
    sign = -1.0 if figure in _GOOD_IF_LOW else 1.0
    pairs = [
        (mine.figures[figure], other.figures[figure])
        for mine, other in zip(ours.runs, theirs.runs, strict=True)
    ]
    known = [(a, b) for a, b in pairs if a is not None and b is not None]
    gain = mean_of(tuple(sign * (b - a) for a, b in known))
    return gain.known and gain.low > 0 and gain.mean >= LEAST_GAIN * abs(ours.mean(figure))


def loss_table(results: Results) -> ResultTable | None:
    """Return the losses as a table; None where nothing was compared."""
    if not OURS.keys() & results.experiments.keys():
        return None
    found = losses(results)
    columns = (
        Column("regime", "regime", text=True),
        Column("rival", "is better", text=True),
        Column("figure", "in", text=True),
        Column("theirs", "theirs"),
        Column("ours", "ours"),
    )
    rows = tuple(asdict(loss) for loss in found)
    cells = tuple(
        (
            loss.regime,
            loss.rival,
            _HEADINGS[loss.figure].removesuffix(", s"),
            _shown(loss.figure, loss.theirs),
            _shown(loss.figure, loss.ours),
        )
        for loss in found
    )
    titles = {name: results.experiments[name].title for name in OURS if name in results.experiments}
    return ResultTable(
        "losses", columns, rows, cells, tuple(titles[loss.experiment] for loss in found)
    )


def _shown(figure: str, value: float) -> str:
    return f"{100 * value:.1f} %" if figure in SHARES else number(value)
