"""Write what a study leaves: report.html, report.md and its plots; and word it as JSON."""

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.experiments.report.content import Section, sections
from penstock.experiments.report.html import to_html
from penstock.experiments.report.markdown import to_markdown
from penstock.experiments.study import Study


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
    html.write_text(to_html(study, parts, intro=intro), "utf-8")
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
