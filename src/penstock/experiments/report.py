"""The report of a study: its sections of text, tables and plots, written as HTML and Markdown."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from penstock.experiments.live import live_table
from penstock.experiments.plots import (
    cdf_plot,
    noise_plot,
    pareto_plot,
    regret_plot,
    worlds_plot,
)
from penstock.experiments.regret import CellRegret
from penstock.experiments.results import Results
from penstock.experiments.study import Study
from penstock.experiments.tables import (
    Column,
    ResultTable,
    by_group,
    grid_table,
    loss_table,
    number,
)

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


TITLE = "The paper's experiments, reproduced"


@dataclass(frozen=True, slots=True)
class Written:
    """What was written.

    Attributes:
        files: those that a reader would open.
        json: the same study as JSON, for whoever wants it.

    """

    files: tuple[Path, ...]
    json: str


def write_report(study: Study, out: Path) -> Written:
    """Write report.html, report.md and its plots into a folder."""
    parts = sections(study)
    intro = introduction(study)
    plots = out / "plots"
    plots.mkdir(parents=True, exist_ok=True)
    for section in parts:
        for plot in section.plots:
            (plots / f"{plot.name}.svg").write_text(_standing_alone(plot.svg), "utf-8")
    html, markdown = out / "report.html", out / "report.md"
    html.write_text(to_html(parts, title=TITLE, intro=intro, study=study), "utf-8")
    markdown.write_text(to_markdown(study, parts, intro=intro), "utf-8")
    return Written((html, markdown), to_json(study, parts))


def introduction(study: Study) -> str:
    """Return what a reader must know before the first figure."""
    worlds = (
        f"Each claim was also tried in {study.worlds} perturbed worlds."
        if study.worlds
        else "Perturbed worlds were not asked for (`--worlds N`)."
    )
    return (
        f"penstock is a reconstruction of *Scheduling the Unschedulable: Taming Black-Box LLM "
        "Inference at Scale* (arXiv 2604.06970) from its abstract and published remarks; constants "
        "that are not published are ours, and claims are checked as relations. Every figure is "
        f"{_means(study.seeds)}, from one default "
        f"configuration of the stack unless the row says otherwise. {worlds}\n\n"
        "Deadlines met counts a refused request as missed. Percentiles are nearest rank over "
        "completed requests, so a policy that refuses much may show a good one: read all columns "
        "together. The column *shed* counts refusals by true bucket (short/medium/long/xlong) "
        "over all seeds."
    )


def _standing_alone(svg: str) -> str:
    return '<?xml version="1.0" encoding="utf-8"?>\n' + svg


def _means(seeds: int) -> str:
    if seeds == 1:
        return "of one seed, which has no interval"
    return f"a mean over {seeds} seeds with its 95 % bootstrap interval"


def to_json(study: Study, sections: list[Section]) -> str:
    """Return `{"claims": [...], "tables": {NAME: [row, ...]}}`; figures that are not are null."""
    document = {
        "claims": [verdict.to_json() for verdict in study.verdicts],
        "tables": {s.name: list(s.table.rows) for s in sections if s.table is not None},
    }
    return json.dumps(_finite(document), indent=1) + "\n"


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(inner) for inner in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


_MARKS = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*([^*]+)\*"), r"<em>\1</em>"),
)


def to_html(sections: list[Section], *, title: str, intro: str, study: Study | None = None) -> str:
    """Return a report as one HTML document, with the claims of a study before the sections."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"prose": prose, "share": share}
    template = files("penstock.experiments").joinpath("report.html.j2").read_text("utf-8")
    return environment.from_string(template).render(
        study=study, sections=sections, title=title, intro=intro, by_group=by_group, safe=Markup
    )


def prose(text: str) -> Markup:
    """Return paragraphs with `code` and *emphasis*; everything else is escaped."""
    paragraphs = []
    for block in re.split(r"\n\s*\n", text.strip()):
        words = str(escape(" ".join(block.split())))
        for pattern, replacement in _MARKS:
            words = pattern.sub(replacement, words)
        paragraphs.append(f"<p>{words}</p>")
    return Markup("\n".join(paragraphs))  # noqa: S704 - escaped above


def to_markdown(study: Study, sections: list[Section], *, intro: str) -> str:
    """Return the whole report; plots are linked as `plots/NAME.svg`."""
    parts = [f"# {TITLE}", intro]
    if study.verdicts:
        parts += ["## Claims", f"**{study.note}.**" if study.note else "", _claims(study)]
    for section in sections:
        parts += [f"## {section.title}", section.text]
        parts += [f"![{p.caption}](plots/{p.name}.svg)\n\n*{p.caption}*" for p in section.plots]
        if section.table is not None:
            parts.append(_table(section.table))
    return "\n\n".join(part for part in parts if part) + "\n"


def _claims(study: Study) -> str:
    head = "| | Published | Ours | Band | Holds | Worlds |\n|---|---|---|---|---|---|\n"
    return head + "\n".join(
        f"| {v.claim} | {v.paper['statement']} | {v.finding.reading} | {v.paper['rule']} | "
        f"{'**NO**' if v.holds is False else v.word} | {share(v.worlds_share)} |"
        for v in study.verdicts
    )


def share(worlds_share: float | None) -> str:
    """Return a share of worlds in words, or that none was asked for."""
    return "not asked" if worlds_share is None else f"{100 * worlds_share:.0f} %"


def _table(table: ResultTable) -> str:
    head = "| " + " | ".join(c.heading for c in table.columns) + " |\n|"
    head += "|".join("---" if c.text else "--:" for c in table.columns) + "|"
    parts = []
    for heading, rows in by_group(table):
        lines = "\n".join("| " + " | ".join(cells) + " |" for cells in rows)
        parts.append((f"### {heading}\n\n" if heading else "") + f"{head}\n{lines}")
    return "\n\n".join(parts)
