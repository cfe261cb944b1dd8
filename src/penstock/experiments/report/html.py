"""The study as one HTML file: plots inside, nothing fetched."""

import re
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup, escape

from penstock.experiments.report.content import Section
from penstock.experiments.report.markdown import share
from penstock.experiments.study import Study
from penstock.experiments.tables import by_group

_MARKS = (
    (re.compile(r"`([^`]+)`"), r"<code>\1</code>"),
    (re.compile(r"\*([^*]+)\*"), r"<em>\1</em>"),
)


def to_html(study: Study, sections: list[Section], *, intro: str) -> str:
    """Return the whole report as one HTML document."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"prose": prose, "share": share}
    template = files("penstock.experiments.report").joinpath("report.html.j2").read_text("utf-8")
    return environment.from_string(template).render(
        study=study, sections=sections, intro=intro, by_group=by_group, safe=Markup
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
