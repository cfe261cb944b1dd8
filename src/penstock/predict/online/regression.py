"""Recursive least squares: linear regressions that are exact after every reply."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class RecursiveRegression:
    """Bayesian linear regressions on the same features, updated one reply at a time.

    Errors are clipped at `clip`, so that one runaway reply does not turn the plane, and old
    replies fade by `forget` each. All targets share one covariance, which is most of the cost.

    Source:
        Recursive least squares with exponential forgetting; Haykin, Adaptive Filter Theory.

    """

    def __init__(
        self,
        start: NDArray[np.float32],
        *,
        prior_variance: float = 0.02,
        forget: float = 0.9995,
        clip: float = 1.5,
    ) -> None:
        """Start from `start` (one row a target), trusted as little as `prior_variance` says."""
        self.weights = start.astype(np.float32)
        self.covariance = np.eye(start.shape[1], dtype=np.float32) * np.float32(prior_variance)
        self._ceiling = prior_variance
        self._forget = np.float32(forget)
        self._clip = clip

    def values(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the value of each target."""
        return self.weights @ features

    def learn(self, features: NDArray[np.float32], errors: tuple[float, ...]) -> None:
        """Take in by how much each value was too low."""
        pull = self.covariance @ features
        gain = pull / (self._forget + features @ pull)
        for row, error in enumerate(errors):
            self.weights[row] += np.float32(min(self._clip, max(-self._clip, error))) * gain
        self.covariance -= np.multiply.outer(gain, pull)
        # Forgetting would let directions that no reply has pointed at grow without bound.
        if float(self.covariance.diagonal().max()) < self._ceiling:
            self.covariance /= self._forget
