"""The runs of one study, found by experiment, regime and variant."""

from collections.abc import Mapping
from dataclasses import dataclass

from penstock.experiments.outcome import RunOutcome
from penstock.experiments.paper import Experiment
from penstock.experiments.statistics import Mean, average, mean_of


@dataclass(frozen=True, slots=True)
class Cell:
    """All seeds of one regime and variant."""

    runs: tuple[RunOutcome, ...]

    def mean(self, figure: str) -> float:
        """Return the figure's mean over the seeds; nan where no run has it."""
        return average([run.figures[figure] for run in self.runs])

    def interval(self, figure: str) -> Mean:
        """Return the mean with its bootstrap interval."""
        return mean_of(tuple(run.figures[figure] for run in self.runs))

    def shed(self, bucket: str) -> int:
        """Return how many requests of the bucket were refused, over all seeds."""
        return sum(run.shed[bucket] for run in self.runs)

    def submitted(self, bucket: str) -> int:
        """Return how many requests of the bucket there were, over all seeds."""
        return sum(run.submitted[bucket] for run in self.runs)

    def shed_share(self, bucket: str) -> float:
        """Return which share of the bucket's requests was refused; 0 where there were none."""
        return self.shed(bucket) / max(1, self.submitted(bucket))


@dataclass(frozen=True, slots=True)
class Results:
    """What the grid experiments found.

    Attributes:
        experiments: those that were run.
        cells: by experiment, regime and variant.

    """

    experiments: Mapping[str, Experiment]
    cells: Mapping[tuple[str, str, str], Cell]

    def cell(self, experiment: str, regime: str, variant: str) -> Cell:
        """Return the cell.

        Raises:
            KeyError: there is none of that name.

        """
        return self.cells[(experiment, regime, variant)]

    def regimes(self, experiment: str) -> list[str]:
        """Return the experiment's regimes, in their order."""
        return [regime.name for regime in self.experiments[experiment].regimes]

    def variants(self, experiment: str) -> list[str]:
        """Return the experiment's variants, in their order."""
        return [variant.name for variant in self.experiments[experiment].variants]
