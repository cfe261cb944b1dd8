"""A call, as the predictor keeps it: numbers and names, never its text.

Its dense features are forty numbers on a log scale or between 0 and 1.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from math import log1p
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features.body import BodyFacts, effort_of, read_body, read_shape
from penstock.predict.features.text import (
    KINDS,
    SAMPLE_BYTES,
    TextNumbers,
    count_tokens,
    estimate_tokens,
    read_text,
)

_WITHOUT_DIGITS = str.maketrans("", "", "0123456789")
_SYSTEM_HEAD_CHARS = 200  # dates and names further on would split one route into many
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


@dataclass(slots=True, eq=False)  # not frozen: one is made a call, and nobody changes it
class CallFeatures:
    """What a prediction is made from; small, and safe to keep until the reply is in.

    Attributes:
        endpoint: the API's shape: "chat", "completions", "responses" or "messages".
        model: the provider's model, with the reasoning effort if one is asked for.
        route: the caller's label, or one derived from system prompt and tools ("~" in front).
        route_sum: its checksum.
        cap_tokens: most output tokens that the body allows, over all choices; inf if unlimited.
        choices: how many replies are asked for at once.
        prompt_tokens: size of the prompt's texts: counted where a tokenizer is loaded, else
            estimated. Features stay estimates, so that models do not depend on it.
        dense: features named by `features.DENSE_NAMES`, scaled, float32.
        grams: places of the last turn's hashed n-grams, uint16, sorted and unique.

    """

    endpoint: str
    model: str
    route: str
    route_sum: int
    cap_tokens: float
    choices: int
    prompt_tokens: int
    dense: NDArray[np.float32]
    grams: NDArray[np.uint16]

    @classmethod
    def from_body(cls, body: Mapping[str, Any], *, endpoint: str, route: str | None = None) -> Self:
        """Read a request body as its API defines it.

        Args:
            body: the parsed JSON; not changed, and not kept.
            endpoint: "chat", "completions", "responses" or "messages".
            route: the caller's label for this kind of call; None derives one.

        """
        return cls._from_facts(read_body(body), str(body.get("model", "")), endpoint, route)

    @classmethod
    def from_prompt(
        cls,
        prompt: str,
        *,
        model: str = "",
        route: str | None = None,
        max_tokens: int | None = None,
    ) -> Self:
        """Read a bare prompt, as data sets have it: one user turn of a chat."""
        facts = BodyFacts(last_user=prompt, turns=1, cap=max_tokens)
        return cls._from_facts(facts, model, "chat", route)

    @classmethod
    def _from_facts(cls, facts: BodyFacts, model: str, endpoint: str, route: str | None) -> Self:
        text = read_text(facts.last_user)
        stretch = max(1.0, len(facts.last_user) / (2 * SAMPLE_BYTES))
        user_tokens = estimate_tokens(text.kind_counts, text.words, stretch=stretch)
        per_char = user_tokens / max(1, len(facts.last_user)) or 0.25
        rest_tokens = per_char * (len(facts.system) + facts.history_chars)
        prompt_tokens = count_tokens(
            (facts.system, *facts.history, facts.last_user),
            estimate=math.ceil(user_tokens + rest_tokens),
        )
        route = route or derive_route(facts, endpoint)
        return cls(
            endpoint=endpoint,
            model=_told(model, facts.effort),
            route=route,
            route_sum=checksum(route),
            cap_tokens=math.inf if facts.cap is None else float(facts.cap * facts.choices),
            choices=facts.choices,
            prompt_tokens=prompt_tokens,
            dense=dense_features(facts, text, user_tokens=user_tokens, rest_tokens=rest_tokens),
            grams=text.grams,
        )


def kind_of(body: Mapping[str, Any], *, endpoint: str, route: str | None = None) -> tuple[str, str]:
    """Return the model and the route that `CallFeatures.from_body` would have; it costs a tenth."""
    model = _told(str(body.get("model", "")), effort_of(body))
    return model, route or derive_route(read_shape(body), endpoint)


def _told(model: str, effort: str) -> str:
    return f"{model}#{effort}" if effort else model


def checksum(text: str) -> int:
    """Return 32 bits that stand for a name; a lone surrogate in it is no error."""
    return zlib.crc32(text.encode("utf-8", "replace"))


def derive_route(facts: BodyFacts, endpoint: str) -> str:
    """Return a stable label for calls that look alike: same endpoint, system prompt and tools.

    Digits are left out and only the head of the system prompt counts, so that a date in it
    does not make a new route every day. A checksum, not the text, so that it may be logged.
    """
    head = facts.system[: 2 * _SYSTEM_HEAD_CHARS].translate(_WITHOUT_DIGITS)[:_SYSTEM_HEAD_CHARS]
    if not head and not facts.tools:
        return f"~{endpoint}"
    shape = "\0".join((head, *sorted(facts.tools)[:50]))
    return f"~{endpoint}-{checksum(shape):08x}"
