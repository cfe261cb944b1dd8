"""Recursive least squares: a linear regression that is exact after every reply."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class RecursiveRegression:
    """Bayesian linear regression, updated one reply at a time.

    Errors are clipped at `clip`, so that one runaway reply does not turn the plane, and old
    replies fade by `forget` each.

    Source:
        Recursive least squares with exponential forgetting; Haykin, Adaptive Filter Theory.

    """

    def __init__(
        self,
        start: NDArray[np.float32],
        prior_variance: NDArray[np.float32],
        *,
        forget: float = 0.9995,
        clip: float = 1.5,
    ) -> None:
        """Start from `start`, trusted as little as `prior_variance` (per weight) says."""
        self.weights = start.astype(np.float32)
        self.covariance = np.diag(prior_variance).astype(np.float32)
        self._ceiling = float(prior_variance.max())
        self._forget = forget
        self._clip = clip

    def value(self, features: NDArray[np.float32]) -> float:
        """Return the regression's value."""
        return float(self.weights @ features)

    def learn(self, features: NDArray[np.float32], target: float) -> None:
        """Move towards `target`, as a unit-variance observation."""
        pull = self.covariance @ features
        error = target - float(self.weights @ features)
        error = min(self._clip, max(-self._clip, error))
        scale = 1.0 / (self._forget + float(features @ pull))
        self.weights += (error * scale) * pull
        self.covariance -= np.outer(pull * np.float32(scale), pull)
        # Forgetting would let unused directions grow without bound.
        if float(self.covariance.diagonal().max()) < self._ceiling:
            self.covariance /= np.float32(self._forget)
