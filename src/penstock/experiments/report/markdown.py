"""The study as Markdown; plots stand beside it as SVG files."""

from penstock.experiments.report.content import Section
from penstock.experiments.study import Study
from penstock.experiments.tables import ResultTable, by_group


def to_markdown(study: Study, sections: list[Section], *, intro: str) -> str:
    """Return the whole report; plots are linked as `plots/NAME.svg`."""
    parts = ["# The paper's experiments, reproduced", intro]
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
