"""What was found about one claim."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.experiments.job import Table
from penstock.experiments.results import Results


@dataclass(frozen=True, slots=True)
class Finding:
    """Our figures for a claim, and whether they lie in its band.

    Attributes:
        measured: figures by name.
        holds: True if all of the band's conditions are met.
        reading: the same in words, for the report.

    """

    measured: Mapping[str, Any]
    holds: bool
    reading: str


@dataclass(frozen=True, slots=True)
class Claim:
    """How a claim is examined.

    Attributes:
        needs: the variants that it looks at, by experiment.
        examine: from the runs and the band to the finding.

    """

    id: str
    needs: Mapping[str, tuple[str, ...]]
    examine: Callable[[Results, Table], Finding]


def percent(share: float) -> str:
    """Return a share as text, in per cent."""
    return f"{100 * share:.1f} %"


def millis(seconds: float) -> str:
    """Return a time in milliseconds."""
    return f"{1000 * seconds:.0f} ms"
