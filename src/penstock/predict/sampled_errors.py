"""Estimates with the errors that a real predictor made, for simulations."""

from __future__ import annotations

import csv
import gzip
import math
from bisect import bisect_left
from collections.abc import Iterable
from importlib import resources
from pathlib import Path
from typing import Self

from penstock.core.model import TokenEstimate
from penstock.errors import ConfigError

_NEIGHBOURS = 100


class SampledErrors:
    """Turns a true length into the estimate that a real predictor might have given for it.

    The error of a recorded prediction of similar true length is replayed: a predictor
    overestimates short replies and underestimates long ones, which symmetric noise on the
    truth leaves out. Pure: chance comes in as `u`.
    """

    def __init__(self, triples: Iterable[tuple[float, float, float]]) -> None:
        """Keep (actual, p50, p90) token triples.

        Raises:
            ConfigError: there is no triple, or one breaks 1 <= p50 <= p90 or actual >= 1.

        """
        self._errors: list[tuple[float, float, float]] = []
        for actual, p50, p90 in triples:
            if not (1 <= actual < math.inf and 1 <= p50 <= p90 < math.inf):
                raise ConfigError(
                    f"actual={actual!r}, p50={p50!r}, p90={p90!r} is no recorded prediction: "
                    "actual >= 1 and 1 <= p50 <= p90 must hold; are the columns in order?"
                )
            self._errors.append((math.log(actual), p50 / actual, p90 / actual))
        if not self._errors:
            raise ConfigError("no recorded predictions to sample errors from: is the file empty?")
        self._errors.sort()
        self._actuals = [row[0] for row in self._errors]

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read a CSV (.gz or not) with `actual` and `p50`, `p90` (or `p50_stack`, `p90_stack`)."""
        opener = gzip.open if path.suffix == ".gz" else open
        with opener(path, "rt", encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        try:
            return cls(
                (
                    float(row["actual"]),
                    float(row.get("p50") or row["p50_stack"]),
                    float(row.get("p90") or row["p90_stack"]),
                )
                for row in rows
            )
        except KeyError as error:
            raise ConfigError(f"{path}: column {error} is missing") from error

    @classmethod
    def shipped(cls) -> Self:
        """Return the errors of penstock's own predictor on 2,500 prompts it had not seen."""
        place = resources.files("penstock.predict") / "prior" / "error_sample.csv.gz"
        with resources.as_file(place) as path:
            return cls.load(path)

    def estimate(self, actual_tokens: float, *, u: float) -> TokenEstimate:
        """Return an estimate for a reply that will have `actual_tokens`.

        Args:
            actual_tokens: the true length, at least 1.
            u: uniform in [0, 1); picks one of the recorded predictions nearest in length.

        """
        size = min(_NEIGHBOURS, len(self._errors))
        middle = bisect_left(self._actuals, math.log(max(1.0, actual_tokens)))
        first = min(max(0, middle - size // 2), len(self._errors) - size)
        _, ratio50, ratio90 = self._errors[first + min(int(u * size), size - 1)]
        p50 = max(1.0, ratio50 * actual_tokens)
        return TokenEstimate(p50, max(p50, ratio90 * actual_tokens), "sampled")
