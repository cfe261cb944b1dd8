"""The demo's load: one plan that every arm plays in the same order at the same times."""

import random
from dataclasses import dataclass

from penstock.core.model import bucket_of

SLOTS = 8
TOKENS_PER_S = 1000.0
"""Of each slot: some ten times a real model's, so that minutes of congestion fit into seconds."""
FIRST_TOKEN_S = 0.02
LOAD = 1.2
"""Work offered, as a multiple of what the provider can do."""


@dataclass(frozen=True, slots=True)
class RequestKind:
    """One kind of request: how often, how long, and by when.

    Attributes:
        in_twenty: how many of twenty requests are of it.
        low, high: output tokens, drawn evenly between them.
        deadline_s: from submission to the last token.

    """

    in_twenty: int
    low: int
    high: int
    deadline_s: float


KINDS = (
    RequestKind(9, 8, 60, 0.25),
    RequestKind(5, 70, 250, 0.5),
    RequestKind(4, 280, 1000, 1.4),
    RequestKind(2, 1100, 2400, 3.6),
)
"""A balanced mix: short questions beside a few long reports (ours, version 1)."""

_CAPS = (64, 256, 1024, 2560)


@dataclass(frozen=True, slots=True)
class Shot:
    """One request of the plan.

    Attributes:
        at_s: when it is sent, from the arm's start.
        output_tokens: how long its reply will be; only the provider is told.
        max_tokens: what its caller allows: the size class that it knows it is in.
        deadline_s: from submission.
        stream: whether the reply is streamed.
        prompt: what is asked.
        model: of whom.
        route: the caller's name for this kind of call, for the predictor; empty for none.

    """

    at_s: float
    output_tokens: int
    max_tokens: int | None
    deadline_s: float
    stream: bool
    prompt: str = "Tell me of water, wheels and gates."
    model: str = "demo"
    route: str = ""

    @property
    def bucket(self) -> str:
        """The paper's bucket of its true length."""
        return bucket_of(self.output_tokens)

    @property
    def service_s(self) -> float:
        """How long the provider works on it, alone in a slot."""
        return FIRST_TOKEN_S + self.output_tokens / TOKENS_PER_S


def plan(seconds: float, *, seed: int) -> list[Shot]:
    """Return a load of `LOAD` times the provider's capacity, in order of time.

    Gaps are exponential. Every twenty requests hold the whole mix, and time is stretched so that
    the work that was really drawn fills `seconds` at exactly that load: a demo should not hang
    on the luck of a seed.
    """
    chance = random.Random(seed)
    room_s = SLOTS * seconds * LOAD
    drawn: list[tuple[float, RequestKind, int]] = []
    at = work_s = 0.0
    while work_s < room_s:
        mix = [kind for kind in KINDS for _ in range(kind.in_twenty)]
        chance.shuffle(mix)
        for kind in mix:
            tokens = chance.randint(kind.low, kind.high)
            drawn.append((at, kind, tokens))
            at += chance.expovariate(1.0)
            work_s += FIRST_TOKEN_S + tokens / TOKENS_PER_S
    stretch = work_s / (SLOTS * LOAD) / at
    return [
        Shot(when * stretch, tokens, _CAPS[KINDS.index(kind)], kind.deadline_s, number % 3 == 0)
        for number, (when, kind, tokens) in enumerate(drawn)
    ]
