"""Named worlds: each is one way in which a window was once seen to go wrong.

Noise that looks like waiting, batching that looks full, prompts that look late, many places, a
crowd, an autoscaler that sleeps, speed that dips. What a stack that knows is told stands in each.
"""

import math
from typing import Any

from worlds_drawn import BOUNDS, World

TOKENS_PER_S, FIRST_S = 200.0, 0.15
MIX = {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1}
MEAN_TOKENS = sum(
    share * (BOUNDS[name][1] - BOUNDS[name][0]) / math.log(BOUNDS[name][1] / BOUNDS[name][0])
    for name, share in MIX.items()
)
MEAN_S = FIRST_S + MEAN_TOKENS / TOKENS_PER_S
SLACK = 4.0
"""Deadlines in service times of a bucket's longest reply."""


def cells() -> list[World]:
    """Return all of them, in the order of the tables."""
    return [
        *_noise(),
        *_spells(),
        *_engines(),
        *_prompts(),
        *_many(),
        *_moving(),
    ]


def _world(name: str, provider: dict[str, Any], places: int, load: float, **workload: Any) -> World:
    usual: dict[str, Any] = {
        "requests": max(1000, 8 * places),
        "rate_per_s": load * places / MEAN_S,
        "mix": MIX,
        "deadline_s": {
            bucket: SLACK * (FIRST_S + high / TOKENS_PER_S) for bucket, (_, high) in BOUNDS.items()
        },
    }
    kind = name.split(" ", maxsplit=1)[0]
    return World(name, kind, {"default": provider}, usual | workload, places, load)


def _slots(places: int, **more: Any) -> dict[str, Any]:
    speeds = {"tokens_per_s": TOKENS_PER_S, "ttft_s": FIRST_S}
    return {"model": "slots", "slots": places, **speeds, **more}


def _noise() -> list[World]:
    found: list[World] = []
    for places in (24, 96):
        for stream in (False, True):
            read = "streamed" if stream else "whole"
            for sigma in (0.0, 0.2, 0.5):
                name = f"jitter {sigma:g}, {places} places, {read}"
                found.append(_world(name, _slots(places, jitter=sigma), places, 0.6, stream=stream))
            slow = {"share": 0.02, "factor": 10}
            name = f"stragglers 2 % of 10x, {places} places, {read}"
            found.append(_world(name, _slots(places, stragglers=slow), places, 0.6, stream=stream))
    return found


def _spells() -> list[World]:
    spells = {"factor": 0.1, "every_s": 60, "for_s": 10}
    return [
        _world(
            f"spells of 0.1x, {'streamed' if stream else 'whole'}",
            _slots(24, spells=spells),
            24,
            0.5,
            stream=stream,
        )
        for stream in (False, True)
    ]


def _engine(name: str, places: int, load: float, *, chunked: bool, stream: bool | float) -> World:
    base_s, each_s = 0.012, 0.0006
    full_s = base_s + places * each_s
    table = {
        "model": "batching",
        "max_seqs": places,
        "iteration_base_s": base_s,
        "iteration_per_seq_s": each_s,
        "chunked": chunked,
    }
    prompt_s = 500 / 10_000
    rate = load / (prompt_s + MEAN_TOKENS * full_s / places)
    due_s = {name: SLACK * (prompt_s + high * full_s) for name, (_, high) in BOUNDS.items()}
    return _world(
        name,
        table,
        places,
        load,
        rate_per_s=rate,
        deadline_s=due_s,
        prompt_tokens=500,
        stream=stream,
    )


def _engines() -> list[World]:
    return [
        _engine("batching 32 at 1.2, whole", 32, 1.2, chunked=False, stream=False),
        _engine("batching 32 at 1.2, streamed", 32, 1.2, chunked=False, stream=True),
        _engine("batching 64 chunked at 0.9, whole", 64, 0.9, chunked=True, stream=False),
        _engine("batching 64 chunked at 0.9, streamed", 64, 0.9, chunked=True, stream=True),
        _engine("batching 64 chunked at 0.9, mixed", 64, 0.9, chunked=True, stream=0.5),
        _world(
            "linear 16 at 1.2",
            {"model": "linear", "base_s": FIRST_S, "s_per_token": 1 / TOKENS_PER_S, "capacity": 16},
            16,
            1.2,
        ),
    ]


def _prompts() -> list[World]:
    read = {"prefill_tokens_per_s": 10_000}
    sizes = {"median": 2000, "sigma": 1.0, "most": 20_000}
    return [
        _world(
            "prompts 60 % cached, 64 places, 8 in flight",
            _slots(64, cached_share=0.6, **read),
            64,
            0.12,
            prompt_tokens=sizes,
            stream=True,
        ),
        _world(
            "prompts lognormal, 64 places at 0.4, whole",
            _slots(64, **read),
            64,
            0.4,
            prompt_tokens=sizes,
        ),
    ]


def _many() -> list[World]:
    opened = _slots(16, changes=[{"at_s": 5, "slots": 253}])
    return [
        _world("places 253 from the start", _slots(253), 253, 0.9),
        _world("places 16 -> 253 after 5 s", opened, 253, 0.6),
        _world(
            "crowd of 200 on 100 places", _slots(100), 100, 1.0, requests=200, rate_per_s=100_000.0
        ),
    ]


def _moving() -> list[World]:
    grows = {"model": "autoscale", "least": 4, "most": 16, "slots": 4}
    grows |= {"step_after_s": 2, "cold_start_s": 5, "tokens_per_s": TOKENS_PER_S, "ttft_s": FIRST_S}
    sharing = {"model": "shared", "capacity": 48, "tokens_per_s": TOKENS_PER_S, "ttft_s": FIRST_S}
    halves = _slots(64, changes=[{"at_s": 60, "slots": 32}, {"at_s": 120, "slots": 64}])
    cloud = {"model": "cloud", "capacity": 48, "outside": "walk", "sigma": 0.3}
    cloud |= {"tokens_per_s": TOKENS_PER_S, "ttft_s": FIRST_S}
    pool = {"model": "pool", "replicas": 8, "slots": 6, "routing": "random"}
    pool |= {"tokens_per_s": TOKENS_PER_S, "ttft_s": FIRST_S}
    return [
        _world("autoscale 16 -> 64 places", grows, 64, 0.5),
        _world("dip shared 48 at 0.9, noisy", sharing | {"jitter": 0.2}, 48, 0.9),
        _world("dip shared 48 from a crowd", sharing, 48, 0.8, arrivals="gamma", cv=3.0),
        _world("moving 64 -> 32 -> 64 places", halves, 64, 0.6),
        _world("cloud 48, outside walks", cloud, 34, 0.8),
        _world("pool 8 x 6, random", pool, 48, 0.7),
    ]
