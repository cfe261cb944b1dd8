"""Fits what no formula says of an engine: its cache, whether prompts stall it, its line to a hair.

The formula's line is where the search begins. Each candidate is a play beside the log.
"""

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from penstock.twin.capacity import Path
from penstock.twin.flights import AttemptTimes
from penstock.twin.service_line import Line
from penstock.twin.told import ENDLESS_CACHE_TOKENS, KindNumbers, Told, played

_CACHES = 12
_STEPS = (0.1, 0.04, 0.015, 0.006, 0.002, 0.0007)
"""Of each number that is searched; the last are less than what one iteration is of a reply."""
_ROUNDS = 3
_WEAKER = 5.0
"""What a sequence or a prompt adds shows so much less in the ends than a whole iteration does."""
_LEAST_BEND = 1e-3
_UNSEEN_PROMPT_S = 1e-4
"""A token: `batching`'s own speed. Without prompts only what is computed again shows it."""


def fitted_engine(start: Told, flights: AttemptTimes) -> Told:
    """Return the engine that tells most when it is played.

    Source:
        Hooke & Jeeves, "Direct Search" (J. ACM 8, 1961): one number after another, in ever shorter
        steps. The ends are steps of whole iterations, which have no slopes.

    """
    prompt_s = start.line.s_per_prompt_token or _UNSEEN_PROMPT_S
    start = replace(start, line=replace(start.line, s_per_prompt_token=prompt_s))
    first = screened(start, flights)
    both = (replace(first.numbers, chunked=chunked) for chunked in (True, False))
    tried = (_refined(each, flights) for each in _all(flights, first.line, both))
    return min(tried, key=lambda each: each.error)


def screened(start: Told, flights: AttemptTimes) -> Told:
    """Return the best cache on the formula's line: from half the largest call to all in hand.

    A call that is larger than the cache runs alone.
    """
    known = start.numbers.places
    most = max(known.places) if isinstance(known, Path) else known
    low, high = flights.tokens_in_hand()
    sizes = np.geomspace(0.5 * low, high, _CACHES)
    caches = [*dict.fromkeys(int(n) for n in sizes), ENDLESS_CACHE_TOKENS]
    places = {most, int(flights.ahead.max())}
    numbers = (replace(start.numbers, places=n, cache_tokens=c) for n in places for c in caches)
    return min(_all(flights, start.line, numbers), key=lambda each: each.error)


def _all(flights: AttemptTimes, line: Line, numbers: Iterable[KindNumbers]) -> list[Told]:
    return [played(flights, each, line) for each in numbers]


def _refined(found: Told, flights: AttemptTimes) -> Told:
    usual = float(flights.flying.mean())
    for step in _STEPS:
        for _ in range(_ROUNDS):
            before = found.error
            for move in _MOVES:
                for factor in (1.0 + step, 1.0 / (1.0 + step)):
                    numbers, line = move(found, factor, usual)
                    tried = played(flights, numbers, line)
                    if tried.error < found.error:
                        found = tried
                        break
            if found.error == before:
                break
    return found


def _iteration(found: Told, factor: float, _usual: float) -> tuple[KindNumbers, Line]:
    return found.numbers, replace(found.line, s_per_token=found.line.s_per_token * factor)


def _cache(found: Told, factor: float, _usual: float) -> tuple[KindNumbers, Line]:
    cache = found.numbers.cache_tokens or ENDLESS_CACHE_TOKENS
    cache = min(ENDLESS_CACHE_TOKENS, round(cache * factor))
    return replace(found.numbers, cache_tokens=cache), found.line


def _slowing(found: Told, factor: float, usual: float) -> tuple[KindNumbers, Line]:
    """Return it with an iteration as long at the usual load, so that each says its own."""
    numbers, line = found.numbers, found.line
    bend = max(numbers.bend, _LEAST_BEND) * factor**_WEAKER
    base_s = line.s_per_token * (1.0 + numbers.bend * usual) / (1.0 + bend * usual)
    return replace(numbers, bend=bend), replace(line, s_per_token=base_s)


def _prompts(found: Told, factor: float, _usual: float) -> tuple[KindNumbers, Line]:
    prompt_s = found.line.s_per_prompt_token * factor**_WEAKER
    return found.numbers, replace(found.line, s_per_prompt_token=prompt_s)


def _places(found: Told, factor: float, _usual: float) -> tuple[KindNumbers, Line]:
    places = found.numbers.places
    if isinstance(places, Path):
        return found.numbers, found.line
    more = round(places * (factor - 1.0)) or (1 if factor > 1.0 else -1)
    return replace(found.numbers, places=max(1, places + more)), found.line


_MOVES = (_iteration, _cache, _slowing, _prompts, _places)
