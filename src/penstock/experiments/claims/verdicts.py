"""All claims over one study, and the share of perturbed worlds in which each holds."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from penstock.experiments.claims.finding import Claim, Finding
from penstock.experiments.claims.relations import CLAIMS
from penstock.experiments.job import Table
from penstock.experiments.results import Results


@dataclass(frozen=True, slots=True)
class ClaimVerdict:
    """One claim: what was published, what we found, the band, and in how many worlds it holds.

    Attributes:
        paper: its table in published.toml.
        worlds: whether it holds, world by world; empty if none was asked for.
        decided: whether there were the seeds that a verdict needs.

    """

    claim: str
    paper: Table
    finding: Finding
    worlds: tuple[bool, ...] = ()
    decided: bool = True

    @property
    def holds(self) -> bool | None:
        """Whether the claim holds; None if there were too few seeds to say."""
        return self.finding.holds if self.decided else None

    @property
    def word(self) -> str:
        """The same in a word."""
        return "undecided" if self.holds is None else "yes" if self.holds else "NO"

    @property
    def worlds_share(self) -> float | None:
        """The share of perturbed worlds in which the claim holds; None without worlds."""
        return sum(self.worlds) / len(self.worlds) if self.worlds else None

    def to_json(self) -> dict[str, Any]:
        """Return the claim in the form that the command promises."""
        return {
            "claim": self.claim,
            "published": self.paper["published"],
            "measured": dict(self.finding.measured),
            "band": self.paper["band"],
            "holds": self.holds,
            "worlds_share": self.worlds_share,
        }


def needs(claims: Iterable[Claim] = CLAIMS) -> dict[str, set[str]]:
    """Return the variants that the claims look at, by experiment."""
    wanted: dict[str, set[str]] = {}
    for claim in claims:
        for experiment, variants in claim.needs.items():
            wanted.setdefault(experiment, set()).update(variants)
    return wanted


def examinable(results: Results) -> list[Claim]:
    """Return the claims whose experiments were run."""
    return [claim for claim in CLAIMS if claim.needs.keys() <= results.experiments.keys()]


def verdicts(
    results: Results,
    published: Mapping[str, Table],
    worlds: Sequence[Results] = (),
    *,
    decided: bool = True,
) -> list[ClaimVerdict]:
    """Return a verdict on every claim whose experiments were run; `decided`: see `ClaimVerdict`."""
    return [
        ClaimVerdict(
            claim.id,
            published[claim.id],
            claim.examine(results, published[claim.id]["band"]),
            tuple(claim.examine(w, published[claim.id]["band"]).holds for w in worlds),
            decided,
        )
        for claim in examinable(results)
    ]
