"""Write what a study leaves: report.html, report.md and its plots; and word it as JSON."""

import json
import math
import re
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from penstock.experiments.report.content import Section, sections
from penstock.experiments.study import Study
from penstock.experiments.tables import ResultTable, by_group

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
    template = files("penstock.experiments.report").joinpath("report.html.j2").read_text("utf-8")
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
