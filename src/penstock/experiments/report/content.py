"""What the report says, apart from how it looks: sections of text, tables and plots."""

from collections.abc import Callable
from dataclasses import dataclass

from penstock.experiments.live.compare import live_table
from penstock.experiments.losses import loss_table
from penstock.experiments.plots.curves import cdf_plot, noise_plot
from penstock.experiments.plots.fronts import pareto_plot
from penstock.experiments.plots.heat import regret_plot, worlds_plot
from penstock.experiments.regret import CellRegret
from penstock.experiments.results import Results
from penstock.experiments.study import Study
from penstock.experiments.tables import Column, ResultTable, grid_table, number

GRID_PLOTS: dict[str, tuple[str, Callable[[str, Results], str]]] = {
    "cdf": ("Latency of completed requests (log scale); left is better.", cdf_plot),
    "pareto": (
        (
            "Deadlines met against short P95, with 95 % intervals; top left is better. "
            "The grey line joins what nothing else beats in both."
        ),
        pareto_plot,
    ),
    "noise": (
        "Over the predictor's error; where there are several seeds, bands are 95 % intervals.",
        noise_plot,
    ),
}


@dataclass(frozen=True, slots=True)
class Plot:
    """A figure and what it shows."""

    name: str
    caption: str
    svg: str


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the report; the last one stands on a page of its own."""

    name: str
    title: str
    text: str
    table: ResultTable | None = None
    plots: tuple[Plot, ...] = ()


def sections(study: Study) -> list[Section]:
    """Return the report's sections after the claims, regrets last."""
    parts = [_grid_section(name, study) for name in study.results.experiments]
    lost = loss_table(study.results)
    if lost is not None:
        parts.append(_loss_section(lost))
    if study.worlds and study.verdicts:
        parts.append(_worlds_section(study))
    if study.live:
        settings = study.paper.special["live"]
        table = live_table(study.live, settings)
        parts.append(Section("live", settings["title"], settings["text"].strip(), table))
    if study.regrets:
        parts.append(_regret_section(study))
    return parts


def _grid_section(name: str, study: Study) -> Section:
    experiment = study.results.experiments[name]
    plots = tuple(
        Plot(f"{name}_{kind}", GRID_PLOTS[kind][0], GRID_PLOTS[kind][1](name, study.results))
        for kind in experiment.plots
    )
    return Section(name, experiment.title, experiment.text, grid_table(name, study.results), plots)


def _loss_section(table: ResultTable) -> Section:
    text = (
        "Every figure in which another policy is better than the one that we recommend, seed by "
        "seed: the 95 % interval of the difference lies on its side, and it is at least 2 %. "
        "Latencies in seconds."
    )
    return Section("losses", "Where another policy is better", text, table)


def _worlds_section(study: Study) -> Section:
    rows = tuple(
        {"claim": v.claim, "worlds": len(v.worlds), "share": v.worlds_share} for v in study.verdicts
    )
    cells = tuple(
        (v.claim, v.paper["rule"], f"{100 * (v.worlds_share or 0.0):.0f} %") for v in study.verdicts
    )
    columns = (
        Column("claim", "claim", text=True),
        Column("rule", "holds if", text=True),
        Column("share", "share of worlds"),
    )
    text = (
        f"{study.worlds} worlds, in each of which every constant of the provider and the workload "
        "was drawn anew within +-25 % of its value. A relation that holds only at the chosen "
        "constants is no finding about scheduling."
    )
    plot = Plot("worlds_heat", "Each column is a world.", worlds_plot(study.verdicts))
    return Section(
        "worlds", "Perturbed worlds", text, ResultTable("worlds", columns, rows, cells), (plot,)
    )


def _regret_section(study: Study) -> Section:
    limits = study.paper.special["regret"]
    plot = Plot(
        "regret_heat",
        "White is the most that is allowed; orange is beyond it.",
        regret_plot(study.regrets, limits["deadline_regret_max"], limits["short_p95_ratio_max"]),
    )
    within = sum(r.holds(limits) for r in study.regrets)
    text = (
        f"{limits['text'].strip()}\n\nThe default stack is within 3 points and 1.25x in "
        f"{within} of {len(study.regrets)} cells."
    )
    return Section("regret", limits["title"], text, regret_table(study), (plot,))


def regret_table(study: Study) -> ResultTable:
    """Return the table of regrets, the report's last page."""
    limits = study.paper.special["regret"]
    columns = (
        Column("regime", "regime", text=True),
        Column("ours", "default: deadlines, short P95"),
        Column("direct", "direct calls"),
        Column("best", "best deadlines", text=True),
        Column("fastest", "best short P95", text=True),
        Column("deadline_regret", "regret, points"),
        Column("short_p95_ratio", "short P95 ratio"),
        Column("holds", "within", text=True),
    )
    cells = tuple(
        (
            r.regime,
            _pair(r, "ours"),
            _pair(r, "direct"),
            f"{_pair(r, 'best')}: {r.best.name}",
            f"{_pair(r, 'fastest')}: {r.fastest.name}",
            f"{100 * r.deadline_regret:.1f}",
            f"{r.short_p95_ratio:.2f}x",
            "yes" if r.holds(limits) else "NO",
        )
        for r in study.regrets
    )
    rows = tuple(regret_row(r) | {"holds": r.holds(limits)} for r in study.regrets)
    groups = tuple(r.provider for r in study.regrets)
    return ResultTable("regret", columns, rows, cells, groups)


def regret_row(regret: CellRegret) -> dict[str, object]:
    """Return a cell's regrets as plain values."""
    row: dict[str, object] = {"provider": regret.provider, "regime": regret.regime}
    for role in ("ours", "direct", "best", "fastest"):
        scored = getattr(regret, role)
        row[f"{role}_deadline_satisfaction"] = scored.deadline_satisfaction
        row[f"{role}_short_p95_s"] = scored.short_p95_s
        row[f"{role}_stack"] = scored.name
    row["deadline_regret"] = regret.deadline_regret
    row["short_p95_ratio"] = regret.short_p95_ratio
    row["stacks_tried"] = regret.tried
    return row


def _pair(regret: CellRegret, role: str) -> str:
    scored = getattr(regret, role)
    return f"{100 * scored.deadline_satisfaction:.1f} %, {number(scored.short_p95_s)} s"
