"""Linear models that learn from every reply: of dense features, and of hashed n-grams."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features.text import PLACES

_PRIOR_VARIANCE = 0.02
_FORGET = np.float32(0.9995)
_CLIP = np.float32(1.5)


class RecursiveRegression:
    """Bayesian linear regressions on the same features, updated batch by batch.

    Errors are clipped at `_CLIP`, so that one runaway reply does not turn the plane, and old
    replies fade by `_FORGET` each. All targets share one covariance, which is most of the cost.

    Source:
        Recursive least squares with exponential forgetting; Haykin, Adaptive Filter Theory.

    """

    def __init__(self, start: NDArray[np.float32]) -> None:
        """Start from `start` (one row a target), trusted as little as `_PRIOR_VARIANCE` says."""
        self.weights = start.astype(np.float32)
        self.covariance = np.eye(start.shape[1], dtype=np.float32) * np.float32(_PRIOR_VARIANCE)

    def values(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return the value of each target."""
        return self.weights @ features

    def learn(self, features: NDArray[np.float32], errors: NDArray[np.float32]) -> None:
        """Take in by how much the values of replies, one a row, were too low."""
        pull = features @ self.covariance
        among = pull @ features.T
        among.flat[:: len(features) + 1] += _FORGET
        gain = np.linalg.solve(among, pull)
        self.weights += np.minimum(_CLIP, np.maximum(-_CLIP, errors)).T @ gain
        self.covariance -= pull.T @ gain
        # Forgetting would let directions that no reply has pointed at grow without bound.
        if float(self.covariance.diagonal().max()) < _PRIOR_VARIANCE:
            self.covariance /= _FORGET ** len(features)


class GramWeights:
    """A linear model over presence of n-grams, each text scaled to length one.

    Every weight has its own variance, so that a word never seen moves far and a common one
    little.

    Source:
        Adaptive regularisation of weights; Crammer, Kulesza & Dredze, NeurIPS 2009; for
        regression Vaits & Crammer, ALT 2011.

    """

    def __init__(self) -> None:
        """Start from zero."""
        self.weights = np.zeros(PLACES, np.float32)
        self.variances = np.ones(PLACES, np.float32)

    def value(self, grams: NDArray[np.uint16]) -> float:
        """Return the sum of the text's weights over the root of their number."""
        if grams.size == 0:
            return 0.0
        return float(np.add.reduce(self.weights.take(grams))) / math.sqrt(grams.size)

    def learn(self, grams: NDArray[np.uint16], wanted: float) -> None:
        """Take in the value that a text should have; it moves as if 1.5 off at most."""
        if grams.size == 0:
            return
        scale = 1.0 / math.sqrt(grams.size)
        places = grams.astype(np.intp)  # numpy would do so at each of the four uses
        weights, variances = self.weights.take(places), self.variances.take(places)
        error = wanted - float(np.add.reduce(weights)) / math.sqrt(grams.size)
        gain = 1.0 / (float(np.add.reduce(variances)) * scale * scale + 1.0)
        step = min(1.5, max(-1.5, error)) * scale * gain
        self.weights[places] = weights + variances * np.float32(step)
        self.variances[places] = variances - variances**2 * np.float32(scale * scale * gain)
