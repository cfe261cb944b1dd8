"""The calls: short questions with a near deadline, and agents' long ones with a shared prompt."""

import math
import random
from dataclasses import dataclass
from itertools import product

SYLLABLES = [c + v for c, v in product("bdfgklmnprs", "aeiou")]
WORDS = [a + b for a, b in product(SYLLABLES, repeat=2)]
AGENTS = 3
"""How many long prompts are shared, each by a third of the batch class's cacheable calls."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One class of calls.

    Attributes:
        share: of all calls.
        output_tokens, prompt_words: least and most; drawn log-uniformly.
        shared_words: length of an agent's prompt, which the engine may have in its prefix cache.
        shared_share: of its calls, those that begin with one.
        patience: its deadline in units of its latency with the engine just full.

    """

    name: str
    share: float
    output_tokens: tuple[int, int]
    prompt_words: tuple[int, int]
    shared_words: int
    shared_share: float
    patience: float


KINDS = (
    Kind("interactive", 0.7, (8, 32), (8, 40), 0, 0.0, 4.0),
    Kind("batch", 0.3, (64, 256), (16, 200), 200, 0.6, 12.0),
)


@dataclass(frozen=True, slots=True)
class Call:
    """One call. `agent` is the number of its shared prompt, None if it has none."""

    kind: Kind
    at_s: float
    output_tokens: int
    prompt_words: int
    agent: int | None
    stream: bool

    def prompt(self, chance: random.Random, tag: str) -> str:
        """Return its prompt. Arms have tags of their own, so that none fills another's cache."""
        shared = random.Random(f"{tag}/{self.agent}")
        length = 0 if self.agent is None else self.kind.shared_words
        words = [shared.choice(WORDS) for _ in range(length)]
        return " ".join(words + [chance.choice(WORDS) for _ in range(self.prompt_words)])


def draw(count: int, *, rate_per_s: float, streamed: float, seed: str) -> list[Call]:
    """Return calls as a Poisson process; a share of them streamed."""
    chance = random.Random(seed)
    calls, at_s = [], 0.0
    for _ in range(count):
        at_s += chance.expovariate(rate_per_s)
        (kind,) = chance.choices(KINDS, [each.share for each in KINDS])
        calls.append(
            Call(
                kind,
                at_s,
                log_uniform(chance, kind.output_tokens),
                log_uniform(chance, kind.prompt_words),
                chance.randrange(AGENTS) if chance.random() < kind.shared_share else None,
                chance.random() < streamed,
            )
        )
    return calls


def log_uniform(chance: random.Random, bounds: tuple[int, int]) -> int:
    """Return a whole number between both bounds; its logarithm is uniform."""
    return round(math.exp(chance.uniform(*map(math.log, bounds))))
