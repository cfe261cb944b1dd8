"""Invented replies, so that the predictor's tests need no data set."""

import random
from dataclasses import dataclass

from penstock.predict import CallFeatures

TOPICS = ("tides", "bridges", "bread", "comets", "glass", "ferries", "moss", "clocks")


@dataclass(frozen=True)
class Asked:
    """A call, its text and how long its reply was."""

    call: CallFeatures
    prompt: str
    tokens: int


def invented(
    count: int, *, seed: int, scale: float = 1.0, route: str | None = "mail"
) -> list[Asked]:
    """Return calls whose replies are long where the prompt asks for an essay, and noisy."""
    chance = random.Random(seed)
    asked = []
    for _ in range(count):
        topic, essay = chance.choice(TOPICS), chance.random() < 0.5
        prompt = f"Write an essay about {topic}" if essay else f"Name one word for {topic}"
        tokens = (600 if essay else 20) * chance.lognormvariate(0.0, 0.25) * scale
        call = CallFeatures.from_prompt(prompt, model="m", route=route)
        asked.append(Asked(call, prompt, max(1, round(tokens))))
    return asked
