"""Recursive least squares: linear regressions that are exact after every batch of replies."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class RecursiveRegression:
    """Bayesian linear regressions on the same features, updated batch by batch.

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
        self._clip = np.float32(clip)

    def values(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the value of each target."""
        return self.weights @ features

    def learn(self, features: NDArray[np.float32], errors: NDArray[np.float32]) -> None:
        """Take in by how much the values of replies, one a row, were too low."""
        pull = features @ self.covariance
        among = pull @ features.T
        among.flat[:: len(features) + 1] += self._forget
        gain = np.linalg.solve(among, pull)
        self.weights += np.minimum(self._clip, np.maximum(-self._clip, errors)).T @ gain
        self.covariance -= pull.T @ gain
        # Forgetting would let directions that no reply has pointed at grow without bound.
        if float(self.covariance.diagonal().max()) < self._ceiling:
            self.covariance /= self._forget ** len(features)
