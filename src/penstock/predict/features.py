"""The dense features of a call: forty numbers on a log scale or between 0 and 1."""

from __future__ import annotations

import re
from math import log1p

import numpy as np
from numpy.typing import NDArray

from penstock.predict.body import BodyFacts
from penstock.predict.text import KINDS, TextNumbers

_LOOKED_AT_CHARS = 1000
# It begins with a digit, so that the regex engine skips text without digits at full speed.
_ASKED = re.compile(
    r"[0-9]{1,5}[ -]?(?:more |short |long |different |bullet |single )?"
    r"(?:word|sentence|paragraph|line|page|item|point|step|example|bullet|character|idea|tip|reason)"
)
_TOKENS_EACH = {
    "word": 1.35, "sentence": 25.0, "paragraph": 90.0, "line": 12.0, "page": 600.0,
    "character": 0.25,
}  # fmt: skip
_TOKENS_PER_ITEM = 30.0
_EFFORT = {"none": -1.0, "minimal": 0.25, "low": 0.5, "medium": 1.0, "high": 2.0, "xhigh": 3.0}

DENSE_NAMES: tuple[str, ...] = (
    "user_tokens", "rest_tokens", "system_chars", "history_chars", "turns", "replies",
    "reply_chars", "has_reply", "images", "tool_results", "tools", "tool_forced", "cap",
    "has_cap", "choices", "json_mode", "stops", "effort", "thinking", "temperature",
    "words", "word_chars", "unique_share", "lines", "line_chars", "last_line_chars",
    "first_line_chars", "asked_tokens", "has_asked", "questions", "fences", "equals_json",
    *(f"share_{name}" for name in KINDS),
)  # fmt: skip
"""Names of the dense features, in order; a saved state names their count."""


def dense_features(
    facts: BodyFacts, text: TextNumbers, *, user_tokens: float, rest_tokens: float
) -> NDArray[np.float64]:
    """Return the dense features in the order of `DENSE_NAMES`. Always finite."""
    user = facts.last_user
    total = max(1.0, float(text.kind_counts.sum()))
    newlines = float(text.kind_counts[KINDS.index("newline")])
    asked = asked_tokens(user)
    values = [
        log1p(user_tokens), log1p(rest_tokens), log1p(len(facts.system)),
        log1p(facts.history_chars), log1p(facts.turns), log1p(facts.replies),
        log1p(facts.reply_chars), float(facts.reply_chars > 0), log1p(facts.images),
        log1p(facts.tool_results), log1p(len(facts.tools)), float(facts.tool_forced),
        log1p(facts.cap or 0), float(facts.cap is not None), log1p(facts.choices),
        float(facts.json_mode), log1p(facts.stops), _EFFORT.get(facts.effort, 0.0),
        log1p(facts.thinking_tokens), facts.temperature,
        log1p(text.words), total / max(1, text.words), text.grams.size / (2 * text.words + 1),
        log1p(newlines), log1p(total / (1 + newlines)), log1p(len(user) - user.rfind("\n")),
        log1p(user.find("\n") + 1), log1p(asked), float(asked > 0),
        log1p(user.count("?")), log1p(user.count("```")), float("json" in user),
    ]  # fmt: skip
    out = np.empty(len(DENSE_NAMES))
    out[: len(values)] = values
    np.divide(text.kind_counts, total, out=out[len(values) :])
    return out


def asked_tokens(text: str) -> float:
    """Return how many tokens the text asks for in words ("in 200 words"), 0 if it does not.

    The largest demand in the head and tail of the text counts.
    """
    if len(text) > 2 * _LOOKED_AT_CHARS:
        text = text[:_LOOKED_AT_CHARS] + " " + text[-_LOOKED_AT_CHARS:]
    most = 0.0
    for demand in _ASKED.findall(text):
        count = float("".join(filter(str.isdigit, demand)))
        unit = demand.replace("-", " ").split()[-1].lstrip("0123456789")
        most = max(most, count * _TOKENS_EACH.get(unit, _TOKENS_PER_ITEM))
    return most
