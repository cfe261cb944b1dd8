"""What a run leaves behind: its metrics, and what the plots and claims need beyond them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from penstock.sim.engine import Rejection

GROUPS = {"short": ("short",), "medium": ("medium",), "long": ("long", "xlong")}
"""Groups of buckets whose latencies are kept; `long` covers xlong, as `long_p90_s` does."""


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """The result of one job.

    Attributes:
        figures: the paper's metrics by name (`short_p95_s`, ...); None where nothing completed.
        shed: refused requests by bucket.
        submitted: requests by bucket.
        in_time: requests by bucket that met their true deadline.
        latencies_s: by group, 101 quantiles (nearest rank, from the least to the greatest), to the
            microsecond: they are drawn, not judged, and files stay small.
        refusals: every refused request.

    """

    figures: Mapping[str, float | None]
    shed: Mapping[str, int]
    submitted: Mapping[str, int]
    in_time: Mapping[str, int]
    latencies_s: Mapping[str, list[float]] = field(default_factory=dict)
    refusals: tuple[Rejection, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return plain lists and dictionaries that `from_json` reads back to the same outcome."""
        plain = asdict(self)
        plain["refusals"] = [list(asdict(one).values()) for one in self.refusals]
        return plain

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """Read what `to_json` wrote.

        Raises:
            KeyError, TypeError: a field is missing or of another form.

        """
        return cls(
            figures=plain["figures"],
            shed=plain["shed"],
            submitted=plain["submitted"],
            in_time=plain["in_time"],
            latencies_s=plain["latencies_s"],
            refusals=tuple(Rejection(*row) for row in plain["refusals"]),
        )
