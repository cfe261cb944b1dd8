"""Queueing theory's answers, and runs of the engine to hold against them."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from random import Random

from penstock.sim.engine import Decider, Engine
from penstock.sim.providers.registry import build_provider
from penstock.sim.workload import Load, Workload
from tests.sim.scripted import UPSTREAM, load

TOKENS_PER_S = 1e6
"""So many that rounding a service time to whole tokens changes nothing that can be seen."""
BATCHES = 30
T_99_29 = 2.756
"""Student's t for 99 % and 29 degrees of freedom."""


@dataclass(frozen=True)
class Interval:
    """A mean with its 99 % confidence interval, by batch means."""

    mean: float
    half: float

    def holds(self, value: float) -> bool:
        return abs(value - self.mean) <= self.half


def batch_means(values: Sequence[float]) -> Interval:
    size = len(values) // BATCHES
    means = [sum(values[n * size : (n + 1) * size]) / size for n in range(BATCHES)]
    mean = sum(means) / BATCHES
    variance = sum((m - mean) ** 2 for m in means) / (BATCHES - 1)
    return Interval(mean, T_99_29 * math.sqrt(variance / BATCHES))


def poisson_workload(
    rate_per_s: float, service_s: Callable[[Random], float], *, count: int, seed: int
) -> Workload:
    chance = Random(seed)
    at, loads = 0.0, list[Load]()
    for id_ in range(1, count + 1):
        at += chance.expovariate(rate_per_s)
        loads.append(load(id_, at, max(1, round(service_s(chance) * TOKENS_PER_S))))
    return Workload(tuple(loads), ())


def sojourns(scheduler: Decider, provider: Mapping[str, object], work: Workload) -> list[float]:
    """Return each request's time in the system; the first tenth, on the way up, is left out."""
    run = Engine(scheduler, {UPSTREAM: build_provider(provider, seed=0)}).run(work)
    latencies = [record.latency_s for record in run.records]
    return latencies[len(latencies) // 10 :]


def waits(scheduler: Decider, provider: Mapping[str, object], work: Workload) -> list[float]:
    """Return each request's time before its service."""
    found = sojourns(scheduler, provider, work)
    services = [each.output_tokens / TOKENS_PER_S for each in work.loads[-len(found) :]]
    return [s - service for s, service in zip(found, services, strict=True)]


def erlang_c_wait_s(rate_per_s: float, mean_service_s: float, servers: int) -> float:
    """Return the mean wait in M/M/c (Erlang, 1917)."""
    offered = rate_per_s * mean_service_s
    rho = offered / servers
    terms = [offered**k / math.factorial(k) for k in range(servers)]
    last = offered**servers / math.factorial(servers) / (1 - rho)
    return last / (sum(terms) + last) * mean_service_s / (servers * (1 - rho))
