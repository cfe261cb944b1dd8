"""The service line: work = base + prompt / speed + tokens x time, by robust least squares."""

import math
from dataclasses import dataclass

import numpy as np

from penstock.twin.history import Floats

_ROUNDS = 6
_TUKEY = 4.685
"""Biweight's constant: 95 % efficient where the noise is normal (Beaton & Tukey, 1974)."""
_NORMAL_MAD = 1.4826
_LEAST_SCALE = 1e-3
_LEAST_BASE_S = 1e-3
"""What passes before a first token has a factor by which it took longer: it cannot be nothing."""


@dataclass(frozen=True, slots=True)
class Line:
    """What a call asks of a provider.

    Attributes:
        base_s: before the first token. s_per_prompt_token, s_per_token: what each adds.
        residuals: natural logarithm of real over fitted work, one for each that was fitted.

    """

    base_s: float
    s_per_prompt_token: float
    s_per_token: float
    residuals: Floats

    def first_s(self, prompt: Floats) -> Floats:
        """Return the work before the first token."""
        return self.base_s + self.s_per_prompt_token * prompt

    def work_s(self, prompt: Floats, output: Floats) -> Floats:
        """Return the work of whole replies."""
        return self.first_s(prompt) + self.s_per_token * output

    @property
    def sigma(self) -> float:
        """The spread of the logarithm, without stragglers."""
        return scale_of(self.residuals)

    def stragglers(self) -> tuple[float, float]:
        """Return the share of replies that took far longer than others alike, and the factor."""
        bound = max(math.log(2.5), 4.0 * self.sigma)
        slow = self.residuals[self.residuals > bound]
        if len(slow) < 2:
            return 0.0, 1.0
        return len(slow) / len(self.residuals), float(np.exp(np.median(slow)))


def scale_of(residuals: Floats) -> float:
    """Return the spread by the median of the absolute residuals, as a normal's sigma."""
    if not len(residuals):
        return 0.0
    return _NORMAL_MAD * float(np.median(np.abs(residuals - np.median(residuals))))


def tukey_weights(residuals: Floats) -> Floats:
    """Return how much each counts: stragglers next to nothing (the root of Tukey's biweight)."""
    u = np.abs(residuals) / (_TUKEY * max(scale_of(residuals), _LEAST_SCALE))
    return np.where(u < 1.0, 1.0 - u**2, 1e-3)


def fit_line(prompt: Floats, output: Floats, work: Floats, first: Floats | None = None) -> Line:
    """Fit the line to work in seconds, each call's error in proportion to its work.

    Args:
        prompt: tokens of each call's prompt.
        output: tokens of each call's reply.
        work: on the clock that counts tokens; all above 0.
        first: how far that clock goes in a second before the first token; 1 if left out.

    Source:
        Iteratively reweighted least squares with Tukey's biweight on the logarithm of the error.

    """
    pace = np.ones_like(work) if first is None else first
    columns = [pace, prompt * pace, output]
    used = [0, 1, 2] if np.ptp(prompt) > 0 else [0, 2]
    if np.ptp(output) == 0:
        used.remove(0)
    coefficients = np.zeros(3)
    weights = 1.0 / work
    log = np.zeros_like(work)
    for _ in range(_ROUNDS):
        coefficients = _not_negative(columns, used, work, weights)
        fitted = np.maximum(sum(c * x for c, x in zip(coefficients, columns, strict=True)), 1e-9)
        log = np.log(work / fitted)
        middle = float(np.median(log))
        coefficients *= math.exp(middle)
        log -= middle
        weights = tukey_weights(log) / fitted
    base, prompt_s, token_s = (float(c) for c in coefficients)
    return Line(max(base, _LEAST_BASE_S), prompt_s, max(token_s, 1e-6), log)


def _not_negative(columns: list[Floats], used: list[int], work: Floats, weights: Floats) -> Floats:
    """Return least squares with what would be below 0 left out, the most negative first."""
    left = list(used)
    while True:
        matrix = np.stack([columns[n] * weights for n in left], axis=1)
        found, *_ = np.linalg.lstsq(matrix, work * weights, rcond=None)
        if len(left) == 1 or found.min() >= 0:
            break
        left.pop(int(found.argmin()))
    coefficients = np.zeros(3)
    coefficients[left] = np.maximum(found, 0.0)
    return coefficients
