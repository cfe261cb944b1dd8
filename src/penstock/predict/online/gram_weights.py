"""One weight per hashed n-gram: what words say about the length of a reply."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features.text import PLACES


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
