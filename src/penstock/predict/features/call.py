"""A call, as the predictor keeps it: numbers and names, never its text."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from penstock.predict.features.body import BodyFacts, effort_of, read_body, read_shape
from penstock.predict.features.dense import dense_features
from penstock.predict.features.prompt_tokens import count_tokens, estimate_tokens
from penstock.predict.features.text import SAMPLE_BYTES, read_text

_DIGITS = str.maketrans("", "", "0123456789")
_SYSTEM_HEAD_CHARS = 200  # dates and names further on would split one route into many


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
    head = facts.system[: 2 * _SYSTEM_HEAD_CHARS].translate(_DIGITS)[:_SYSTEM_HEAD_CHARS]
    if not head and not facts.tools:
        return f"~{endpoint}"
    shape = "\0".join((head, *sorted(facts.tools)[:50]))
    return f"~{endpoint}-{checksum(shape):08x}"
