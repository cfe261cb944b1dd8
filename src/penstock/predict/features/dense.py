"""The dense features of a call: forty numbers on a log scale or between 0 and 1."""

from __future__ import annotations

import re
from math import log1p

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features.body import BodyFacts
from penstock.predict.features.text import KINDS, TextNumbers

_LOOKED_AT_CHARS = 400
_DIGITS = b"0123456789"
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

_SCALES: tuple[tuple[str, float, float], ...] = (
    ("user_tokens", 4.27, 0.9),
    ("rest_tokens", 0.0, 3.0),
    ("system_chars", 0.0, 3.0),
    ("history_chars", 0.0, 3.0),
    ("turns", 0.69, 0.7),
    ("replies", 0.0, 0.7),
    ("reply_chars", 0.0, 3.0),
    ("has_reply", 0.0, 0.5),
    ("images", 0.0, 0.7),
    ("tool_results", 0.0, 0.7),
    ("tools", 0.0, 1.0),
    ("tool_forced", 0.0, 0.5),
    ("cap", 0.0, 4.0),
    ("has_cap", 0.0, 0.5),
    ("choices", 0.69, 0.5),
    ("json_mode", 0.0, 0.5),
    ("stops", 0.0, 0.7),
    ("effort", 0.0, 1.0),
    ("thinking", 0.0, 4.0),
    ("temperature", 1.0, 0.5),
    ("words", 4.27, 0.9),
    ("word_chars", 4.5, 0.8),
    ("unique_share", 0.75, 0.14),
    ("lines", 1.68, 1.36),
    ("line_chars", 4.1, 0.8),
    ("last_line_chars", 2.8, 2.0),
    ("first_line_chars", 1.5, 1.8),
    ("asked_tokens", 0.06, 0.65),
    ("has_asked", 0.0, 0.2),
    ("questions", 0.43, 0.43),
    ("fences", 0.43, 0.54),
    ("names_json", 0.4, 0.5),
    ("share_lower", 0.72, 0.08),
    ("share_upper", 0.026, 0.025),
    ("share_digit", 0.011, 0.02),
    ("share_space", 0.16, 0.023),
    ("share_newline", 0.018, 0.016),
    ("share_stop", 0.026, 0.013),
    ("share_bracket", 0.01, 0.016),
    ("share_operator", 0.016, 0.02),
    ("share_quote", 0.017, 0.02),
    ("share_accented", 0.0, 0.02),
    ("share_wide", 0.0, 0.1),
    ("share_rest", 0.0, 0.02),
)
"""Name, centre and scale of each dense feature. Centres and scales are ours, rounded from the
prompts of the shipped prior; where those have no example (tools, turns), set by hand."""

DENSE_NAMES: tuple[str, ...] = tuple(name for name, _, _ in _SCALES)
"""Names of the dense features, in order; a saved state names their count."""
_CENTRE = np.array([centre for _, centre, _ in _SCALES])
_SCALE = np.array([scale for _, _, scale in _SCALES])
_DIGIT = KINDS.index("digit")
_NEWLINE = KINDS.index("newline")
_LIMIT = np.float32(4.0)  # scales; beyond, a feature says no more than "very"


def dense_features(
    facts: BodyFacts, text: TextNumbers, *, user_tokens: float, rest_tokens: float
) -> NDArray[np.float32]:
    """Return the dense features in the order of `DENSE_NAMES`, scaled, within +-4."""
    user = facts.last_user
    counts = text.kind_counts
    total = max(1.0, sum(counts))
    newlines = counts[_NEWLINE]
    # Where ASCII is all there is, the counts have seen all that `asked_tokens` looks at.
    asked = asked_tokens(user) if counts[_DIGIT] or not user.isascii() else 0.0
    fences = user.count("```") if "`" in user else 0  # most have none, and "in" is fast
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
        log1p(user.count("?")), log1p(fences), float("json" in user),
    ]  # fmt: skip
    values += [count / total for count in counts]
    exact = np.array(values)
    exact -= _CENTRE
    exact /= _SCALE
    scaled: NDArray[np.float32] = exact.astype(np.float32)
    np.minimum(scaled, _LIMIT, out=scaled)  # np.clip takes five times as long
    return np.maximum(scaled, -_LIMIT, out=scaled)


def asked_tokens(text: str) -> float:
    """Return how many tokens the text asks for in words ("in 200 words"), 0 if it does not.

    The largest demand in the head and tail of the text counts.
    """
    if len(text) > 2 * _LOOKED_AT_CHARS:
        text = text[:_LOOKED_AT_CHARS] + " " + text[-_LOOKED_AT_CHARS:]
    most = 0.0
    data = text.encode("ascii", "ignore")
    if len(data.translate(None, _DIGITS)) == len(data):  # a tenth of the time of the regex
        return most
    for demand in _ASKED.findall(text):
        count = float("".join(filter(str.isdigit, demand)))
        unit = demand.replace("-", " ").split()[-1].lstrip("0123456789")
        most = max(most, count * _TOKENS_EACH.get(unit, _TOKENS_PER_ITEM))
    return most
