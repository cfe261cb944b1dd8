"""Draws worlds: a provider, a workload, and what a stack may be told that knows.

World k draws everything from the number k. Numbers are split for good:

- 0 to 9,999 are for work: whoever changes a policy may look at them as often as they like;
- 10,000 to 19,999 are for reports: nobody looks into one of them, or tries anything on them;
- from 20,000 on they are yours: nothing in this repository was ever run on them.
"""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

WORKING = range(10_000)
TESTING = range(10_000, 20_000)

BOUNDS = {"short": (16, 64), "medium": (65, 256), "long": (257, 1024), "xlong": (1025, 4096)}
DEADLINE_S = {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0}
KINDS = (
    "slots",
    "shared",
    "thrash",
    "linear",
    "serial",
    "batching",
    "cloud",
    "pool",
    "autoscale",
    "limited",
    "several",
)
LOADS = (0.2, 0.4, 0.6, 0.8, 0.9, 1.0, 1.1, 1.3, 1.6, 2.0)
MOST_PLACES = 256
REQUESTS = 400
REQUESTS_PER_PLACE = 4
"""So many more, that a provider with many places is seen full for a while too."""


@dataclass(frozen=True)
class World:
    """What runs, and what it is counted with.

    Attributes:
        number: whence it was drawn, or a cell's name.
        kind: what its provider is.
        providers: the scenario's tables by upstream.
        places: the number of requests in flight that a stack which knows is told.

    """

    number: int | str
    kind: str
    providers: dict[str, dict[str, Any]]
    workload: dict[str, Any]
    places: int
    load: float

    def document(self, stack: dict[str, Any], seed: int) -> dict[str, Any]:
        """Return the scenario of one run under this stack."""
        return {
            "seeds": [seed],
            "providers": self.providers,
            "workload": self.workload,
            "policies": {"it": stack},
        }

    def marks(self) -> str:
        """Return in a few words what is unusual about it."""
        table = next(iter(self.providers.values()))
        words = [f"x{len(self.providers)}"] if len(self.providers) > 1 else []
        words += [f"{key} {table[key]:g}" for key in ("jitter", "sigma") if table.get(key)]
        flags = ("stragglers", "spells", "changes", "keeps_cancelled", "limits")
        words += [key for key in flags if table.get(key)]
        words += [f"{key} {table[key]}" for key in ("outside", "routing") if key in table]
        if self.workload.get("prompt_tokens"):
            words.append(f"prompts ({table.get('cached_share', 0):.0%} cached)")
        return ", ".join(words)


@dataclass
class Pace:
    """How fast a provider is, for loads and deadlines.

    Attributes:
        first_s: before the first token, without the prompt. s_per_token: of one reply while the
            provider is as full as its places.
        places: how many it serves at that speed.

    """

    first_s: float
    s_per_token: float
    places: int


def draw(number: int) -> World:
    """Return world `number`."""
    dice = random.Random(f"world {number}")
    kind = dice.choice(KINDS)
    model = dice.choice(("slots", "shared", "batching")) if kind in ("limited", "several") else kind
    places = 1 if model == "serial" else round(_log_uniform(dice, 1, MOST_PLACES))
    table, pace = _MODELS[model](dice, places)
    workload = _requests(dice, pace)
    prompt_s = _prompts(dice, table, workload, pace)
    slower = _noise(dice, table, model, pace)
    _deadlines(dice, workload, pace, prompt_s)
    upstreams = dice.choice((2, 3)) if kind == "several" else 1
    load = dice.choice(LOADS)
    tokens = _mean_tokens(workload["mix"])
    service_s = (pace.first_s + prompt_s + tokens * pace.s_per_token) * slower
    if model == "batching":
        # A prompt takes the whole engine, not one place of it.
        service_s = (pace.places * prompt_s + tokens * pace.s_per_token) * slower
    rate = load * upstreams * pace.places / service_s
    workload["rate_per_s"] = rate
    _arrivals(dice, workload)
    if kind == "limited":
        table["limits"] = _limits(dice, rate, workload, tokens)
        workload["refusal_s"] = _log_uniform(dice, 0.01, 0.3)
    providers = {"default": table}
    if kind == "several":
        providers = {f"up{n}": _varied(dice, table, n) for n in range(upstreams)}
    return World(number, kind, providers, workload, pace.places, load)


def _log_uniform(dice: random.Random, low: float, high: float) -> float:
    return math.exp(dice.uniform(math.log(low), math.log(high)))


def _speeds(dice: random.Random) -> dict[str, Any]:
    return {
        "tokens_per_s": _log_uniform(dice, 40, 300),
        "ttft_s": _log_uniform(dice, 0.05, 0.8),
    }


def _pace(table: dict[str, Any], places: int, slower: float = 1.0) -> Pace:
    return Pace(table["ttft_s"], slower / table["tokens_per_s"], places)


def _slots(dice: random.Random, places: int) -> tuple[dict[str, Any], Pace]:
    beta = dice.choice((0.0, 0.0, 0.02, 0.05))
    table = {"model": "slots", "slots": places, "beta": beta, **_speeds(dice)}
    return table, _pace(table, places, 1.0 + beta * places)


def _shared(dice: random.Random, places: int) -> tuple[dict[str, Any], Pace]:
    table = {"model": "shared", "capacity": places, **_speeds(dice)}
    return table, _pace(table, places)


def _thrash(dice: random.Random, places: int) -> tuple[dict[str, Any], Pace]:
    theta = dice.choice((0.25, 0.5, 1.0))
    table = {"model": "thrash", "capacity": places, "theta": theta, **_speeds(dice)}
    return table, _pace(table, places)


def _serial(dice: random.Random, places: int) -> tuple[dict[str, Any], Pace]:
    table = {"model": "serial", **_speeds(dice)}
    return table, _pace(table, places)


def _linear(dice: random.Random, places: int) -> tuple[dict[str, Any], Pace]:
    speeds = _speeds(dice)
    pace = _pace(speeds, places)
    gamma = dice.choice((0.2, 0.5, 1.0))
    table = {"model": "linear", "base_s": pace.first_s, "s_per_token": pace.s_per_token}
    return table | {"capacity": places, "gamma": gamma}, pace


def _batching(dice: random.Random, places: int) -> tuple[dict[str, Any], Pace]:
    base_s = _log_uniform(dice, 0.006, 0.03)
    # From memory-bound (one more costs next to nothing) to compute-bound.
    each_s = base_s * _log_uniform(dice, 0.01, 0.2)
    table = {
        "model": "batching",
        "max_seqs": places,
        "kv_tokens": round(max(12_000, places * _log_uniform(dice, 600, 6000))),
        "iteration_base_s": base_s,
        "iteration_per_seq_s": each_s,
        "prefill_tokens_per_s": _log_uniform(dice, 3000, 30_000),
        "chunked": dice.random() < 0.7,
    }
    full_s = base_s + places * each_s
    return table, Pace(full_s, full_s, places)


def _cloud(dice: random.Random, places: int) -> tuple[dict[str, Any], Pace]:
    outside = dice.choice(("none", "walk", "daily", "sudden"))
    taken = 0.0 if outside == "none" else dice.choice((0.3, 0.6))
    table = {
        "model": "cloud",
        "capacity": places,
        "outside": outside,
        "outside_share": taken,
        "sigma": dice.choice((0.0, 0.1, 0.2, 0.4)),
        "queue": dice.random() < 0.5,
        **_speeds(dice),
    }
    return table, _pace(table, max(1, round(places * (1.0 - taken / 2.0))))


def _pool(dice: random.Random, places: int) -> tuple[dict[str, Any], Pace]:
    replicas = max(1, min(places, round(_log_uniform(dice, 2, 32))))
    slots = max(1, round(places / replicas))
    routing = dice.choice(("random", "round_robin", "least"))
    table = {"model": "pool", "replicas": replicas, "slots": slots, "routing": routing}
    table |= _speeds(dice)
    return table, _pace(table, replicas * slots)


def _autoscale(dice: random.Random, places: int) -> tuple[dict[str, Any], Pace]:
    most = max(1, min(places, dice.choice((2, 4, 8, 16))))
    slots = max(1, round(places / most))
    table: dict[str, Any] = {
        "model": "autoscale",
        "most": most,
        "least": max(1, most // 4),
        "slots": slots,
    }
    table |= _speeds(dice)
    long_s = 300.0 / table["tokens_per_s"]
    table |= {"step_after_s": long_s * dice.choice((0.5, 2.0)), "idle_s": 20.0 * long_s}
    table["cold_start_s"] = long_s * dice.choice((1.0, 5.0, 20.0))
    return table, _pace(table, most * slots)


_MODELS: dict[str, Callable[[random.Random, int], tuple[dict[str, Any], Pace]]] = {
    "slots": _slots,
    "shared": _shared,
    "thrash": _thrash,
    "linear": _linear,
    "serial": _serial,
    "batching": _batching,
    "cloud": _cloud,
    "pool": _pool,
    "autoscale": _autoscale,
}


def _requests(dice: random.Random, pace: Pace) -> dict[str, Any]:
    shares = [0.05 + dice.gammavariate(1.5, 1.0) for _ in BOUNDS]
    mix = {name: share / sum(shares) for name, share in zip(BOUNDS, shares, strict=True)}
    return {
        "requests": REQUESTS + REQUESTS_PER_PLACE * pace.places,
        "mix": mix,
        "information": dice.choice(("coarse", "coarse", "coarse", "oracle")),
        "noise": dice.choice((0.0, 0.0, 0.2, 0.5)),
        "stream": dice.choice((True, False, 0.5)),
    }


def _prompts(
    dice: random.Random, table: dict[str, Any], workload: dict[str, Any], pace: Pace
) -> float:
    """Give two worlds in five prompts that cost; return their mean prefill in seconds."""
    if dice.random() >= 0.4:
        return 0.0
    median, sigma = _log_uniform(dice, 200, 3000), dice.choice((0.5, 1.0))
    workload["prompt_tokens"] = {"median": median, "sigma": sigma, "most": 10_000}
    cached = table["cached_share"] = dice.choice((0.0, 0.0, 0.3, 0.6, 0.9))
    if table["model"] != "batching":
        # From a prompt that hardly matters to one that takes as long as a medium reply.
        table["prefill_tokens_per_s"] = median / (_log_uniform(dice, 3, 150) * pace.s_per_token)
    mean = min(10_000.0, median * math.exp(sigma**2 / 2.0))
    return mean * (1.0 - 0.95 * cached) / float(table["prefill_tokens_per_s"])


def _noise(dice: random.Random, table: dict[str, Any], model: str, pace: Pace) -> float:
    """Add luck, spells and changes; return how much slower it makes replies on average."""
    slower = 1.0
    if model not in ("batching", "cloud"):
        sigma = table["jitter"] = dice.choice((0.0, 0.0, 0.05, 0.1, 0.2, 0.35, 0.5))
        slower *= math.exp(sigma**2 / 2.0)
    if model != "batching" and dice.random() < 0.2:
        table["stragglers"] = {"share": dice.choice((0.01, 0.03)), "factor": dice.choice((4, 10))}
        slower *= 1.0 + table["stragglers"]["share"] * (table["stragglers"]["factor"] - 1.0)
    long_s = pace.first_s + 300.0 * pace.s_per_token
    if dice.random() < 0.15:
        factor, for_s = dice.choice((0.1, 0.3, 0.6)), long_s * dice.choice((1.0, 4.0))
        table["spells"] = {"factor": factor, "every_s": 6.0 * for_s, "for_s": for_s}
        slower /= 1.0 - (1.0 - factor) / 6.0
    key = {"slots": "slots", "batching": "max_seqs", "pool": "slots", "cloud": "capacity"}.get(
        model, "capacity" if model in ("shared", "thrash", "linear") else ""
    )
    if key and dice.random() < 0.2:
        before = table[key]
        after = max(1, round(before * dice.choice((0.5, 2.0))))
        table["changes"] = [{"at_s": 20.0 * long_s, key: after}]
    if dice.random() < 0.1:
        table["keeps_cancelled"] = True
    return slower


def _deadlines(dice: random.Random, workload: dict[str, Any], pace: Pace, prompt_s: float) -> None:
    slack = dice.choice((1.5, 2.0, 3.0, 4.0))
    workload["deadline_s"] = {
        name: max(due_s, slack * (pace.first_s + prompt_s + BOUNDS[name][1] * pace.s_per_token))
        for name, due_s in DEADLINE_S.items()
    }


def _mean_tokens(mix: dict[str, float]) -> float:
    return sum(
        share * (BOUNDS[name][1] - BOUNDS[name][0]) / math.log(BOUNDS[name][1] / BOUNDS[name][0])
        for name, share in mix.items()
    )


def _arrivals(dice: random.Random, workload: dict[str, Any]) -> None:
    arrivals = dice.choice(("poisson", "poisson", "gamma", "bursts", "diurnal"))
    span_s = workload["requests"] / workload["rate_per_s"]
    workload["arrivals"] = arrivals
    if arrivals == "gamma":
        workload["cv"] = dice.choice((2.0, 3.0))
    elif arrivals == "bursts":
        on_s = span_s / dice.uniform(6.0, 15.0)
        workload |= {"on_s": on_s, "off_s": on_s * dice.choice((0.5, 1.0, 2.0))}
    elif arrivals == "diurnal":
        workload |= {"period_s": span_s / 2.0, "amplitude": 0.8}


def _limits(
    dice: random.Random, rate: float, workload: dict[str, Any], tokens: float
) -> dict[str, Any]:
    room = dice.choice((0.7, 1.0, 1.5))
    prompts = workload.get("prompt_tokens", {}).get("median", 0.0)
    limit = dice.choice(("rpm", "tpm", "both"))
    stated: dict[str, Any] = {"burst_s": dice.choice((5.0, 60.0)), "silent": dice.random() < 0.5}
    if limit != "tpm":
        stated["rpm"] = 60.0 * rate * room
    if limit != "rpm":
        stated["tpm"] = 60.0 * rate * room * (tokens + 1.3 * prompts)
    return stated | {"dialect": dice.choice(("openai", "anthropic", "groq", "plain"))}


def _varied(dice: random.Random, table: dict[str, Any], number: int) -> dict[str, Any]:
    """Return one upstream of several: the same kind, up to half as fast again or slower."""
    if number == 0:
        return table
    speed = _log_uniform(dice, 0.6, 1.6)
    if table["model"] == "batching":
        return table | {"iteration_base_s": table["iteration_base_s"] / speed}
    return table | {"tokens_per_s": table["tokens_per_s"] * speed}
