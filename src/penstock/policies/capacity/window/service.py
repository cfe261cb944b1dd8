"""What a reply should take where nothing waits: the lines that records are compared with."""

import math
from dataclasses import dataclass, field

from penstock.core.service_time import ServiceTime

KEEP = 100
"""A line follows a slower provider after so many replies of a length: a crowd is not its speed."""
MODELS_LIMIT = 256
LEAST_S = 1e-6
TOKENS_WEIGHT = 0.05


@dataclass(slots=True)
class ExpectedService:
    """One line for each model over the output's length, and one for first tokens over the prompt's.

    Attributes:
        mean_tokens: of recent replies: where lines are compared with what they were.

    """

    mean_tokens: float = 200.0
    _lines: dict[str, ServiceTime] = field(default_factory=dict)

    def of(self, model: str, guess: ServiceTime) -> ServiceTime:
        """Return the line of a model; the first time one that starts from `guess`."""
        line = self._lines.get(model)
        if line is None:
            if len(self._lines) >= MODELS_LIMIT:  # names are the callers': memory is bounded
                return next(iter(self._lines.values()))
            line = self._lines[model] = ServiceTime(guess.base_s, guess.s_per_token, keep=KEEP)
            line.first.keep = KEEP
        return line

    def observe(self, line: ServiceTime, tokens: int, latency_s: float) -> float:
        """Learn from a reply; return by how much the logarithm of the usual service fell."""
        self.mean_tokens += TOKENS_WEIGHT * (tokens - self.mean_tokens)
        before_s = line.predict_s(self.mean_tokens)
        line.observe(tokens, latency_s)
        return math.log(max(LEAST_S, before_s) / max(LEAST_S, line.predict_s(self.mean_tokens)))
