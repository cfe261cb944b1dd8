"""When requests arrive: seeded generators of times, in seconds from 0.

Each is an endless iterator that draws from the generator it is given, so that a shorter run is a
prefix of a longer one.
"""

import math
from collections.abc import Iterator
from random import Random


def poisson(rate_per_s: float, chance: Random) -> Iterator[float]:
    """Yield the times of a Poisson process.

    Source:
        Exponential gaps by inversion.

    """
    at = 0.0
    while True:
        at += _exponential(1.0 / rate_per_s, chance)
        yield at


def gamma(rate_per_s: float, cv: float, chance: Random) -> Iterator[float]:
    """Yield times with gamma gaps of this coefficient of variation; 1 is Poisson, more is bursty.

    Source:
        The gap model of BurstGPT and ServeGen for production LLM traffic.

    """
    shape = 1.0 / (cv * cv)
    scale = 1.0 / (rate_per_s * shape)
    at = 0.0
    while True:
        at += chance.gammavariate(shape, scale)
        yield at


def weibull(rate_per_s: float, shape: float, chance: Random) -> Iterator[float]:
    """Yield times with Weibull gaps of this shape; ServeGen fits some clients so."""
    scale = 1.0 / (rate_per_s * math.gamma(1.0 + 1.0 / shape))
    at = 0.0
    while True:
        at += chance.weibullvariate(scale, shape)
        yield at


def bursts(rate_per_s: float, on_s: float, off_s: float, chance: Random) -> Iterator[float]:
    """Yield Poisson times that fall only in on-phases; the long-run mean rate is `rate_per_s`.

    Phases last exponentially, `on_s` and `off_s` on average; the first one is on.

    Source:
        The interrupted Poisson process (Kuczura, 1973).

    """
    on_rate = rate_per_s * (on_s + off_s) / on_s
    at = 0.0
    end_of_phase = _exponential(on_s, chance)
    while True:
        gap = _exponential(1.0 / on_rate, chance)
        while at + gap >= end_of_phase:
            # What is left of the gap runs on in the next on-phase: the process has no memory.
            gap -= end_of_phase - at
            at = end_of_phase + (_exponential(off_s, chance) if off_s > 0 else 0.0)
            end_of_phase = at + _exponential(on_s, chance)
        at += gap
        yield at


def diurnal(
    rate_per_s: float, period_s: float, amplitude: float, chance: Random
) -> Iterator[float]:
    """Yield Poisson times whose rate swings as 1 + amplitude x sin(2 pi t / period_s).

    Source:
        Thinning (Lewis & Shedler, 1979).

    """
    highest = rate_per_s * (1.0 + amplitude)
    at = 0.0
    while True:
        at += _exponential(1.0 / highest, chance)
        rate = rate_per_s * (1.0 + amplitude * math.sin(2.0 * math.pi * at / period_s))
        if chance.random() * highest < rate:
            yield at


def _exponential(mean: float, chance: Random) -> float:
    # Not `expovariate`, whose way from chance to gap Python does not promise to keep.
    return -mean * math.log(1.0 - chance.random())
