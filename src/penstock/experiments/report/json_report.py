"""The study as JSON: claims and tables."""

import json
import math
from typing import Any

from penstock.experiments.report.content import Section
from penstock.experiments.study import Study


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
