"""Train the prior that is shipped: from replies of many models, for routes yet unknown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from penstock.predict.datasets import Reply
from penstock.predict.lessons import Lesson, lesson
from penstock.predict.prior import PriorModel
from penstock.predict.training import fit_prior

_ROUNDS = 3
_MODELS_MIN = 3  # of which a prompt needs replies before it says who is verbose
_PROMPTS_MIN = 50


def train_shared(replies: Sequence[Reply]) -> PriorModel:
    """Return a prior that reads prompts and knows some models, but no route labels.

    Each prompt counts once, with the mean over models of the log length, each model's
    verbosity taken off: forty replies to one prompt are hardly more than one to learn from.
    """
    lessons: dict[str, list[tuple[str, Lesson]]] = defaultdict(list)
    for reply in replies:
        entry = (reply.call.model, lesson(reply.call, reply.output_tokens))
        lessons[reply.prompt].append(entry)
    verbosity = _verbosity(list(lessons.values()))
    means = []
    for entries in lessons.values():
        values = [item.log_tokens - verbosity.get(model, 0.0) for model, item in entries]
        first = entries[0][1]
        means.append(Lesson(first.call, float(np.mean(values)), first.fold))
    prior = fit_prior(means, labelled=False)
    prior.verbosity = verbosity
    return prior


def _verbosity(prompts: Sequence[Sequence[tuple[str, Lesson]]]) -> dict[str, float]:
    verbosity: dict[str, float] = {}
    for _ in range(_ROUNDS):
        gaps: dict[str, list[float]] = defaultdict(list)
        for entries in prompts:
            if len(entries) < _MODELS_MIN:
                continue
            middle = np.median([item.log_tokens - verbosity.get(m, 0.0) for m, item in entries])
            for model, item in entries:
                gaps[model].append(item.log_tokens - float(middle))
        verbosity = {
            model: round(float(np.median(values)), 3)
            for model, values in sorted(gaps.items())
            if len(values) >= _PROMPTS_MIN
        }
    return verbosity
