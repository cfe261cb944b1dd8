"""The engine and the provider models against queueing theory, within 99 % intervals."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from penstock.core.model import TrafficClass
from penstock.core.settings import PolicySpec, Settings, Stack
from penstock.policies.registry import build_scheduler
from tests.oracles.queues import (
    TOKENS_PER_S,
    batch_means,
    erlang_c_wait_s,
    poisson_workload,
    sojourns,
    waits,
)
from tests.sim.scripted import Direct

Law = Callable[[Random], float]


def exponential(mean_s: float) -> Law:
    return lambda chance: chance.expovariate(1.0 / mean_s)


def two_sizes(chance: Random) -> float:
    """Return 0.2 s nine times in ten, else 8.2 s: mean 1 s, as uneven as LLM replies."""
    return 0.2 if chance.random() < 0.9 else 8.2


def slots(count: int) -> dict[str, object]:
    return {"model": "slots", "slots": count, "tokens_per_s": TOKENS_PER_S, "ttft_s": 0.0}


@pytest.mark.parametrize(("servers", "rate_per_s"), [(1, 0.6), (3, 2.1), (8, 6.4)])
def test_hidden_queue_of_slots_waits_as_erlang_says(servers: int, rate_per_s: float) -> None:
    work = poisson_workload(rate_per_s, exponential(1.0), count=60_000, seed=servers)

    found = batch_means(waits(Direct(), slots(servers), work))

    assert found.holds(erlang_c_wait_s(rate_per_s, 1.0, servers))
    assert found.half < 0.35 * found.mean


@pytest.mark.parametrize(("servers", "rate_per_s"), [(1, 0.6), (3, 2.1)])
def test_a_fifo_window_before_a_roomy_provider_waits_as_erlang_says(
    servers: int, rate_per_s: float
) -> None:
    stack = Stack(
        PolicySpec("fifo"),
        PolicySpec("fifo"),
        PolicySpec("always_admit"),
        PolicySpec("fixed", {"window": servers}),
    )
    scheduler = build_scheduler(Settings((TrafficClass("all"),), stack=stack))
    work = poisson_workload(rate_per_s, exponential(1.0), count=30_000, seed=servers)

    found = batch_means(waits(scheduler, slots(10_000), work))

    assert found.holds(erlang_c_wait_s(rate_per_s, 1.0, servers))


@pytest.mark.parametrize("law", [exponential(1.0), two_sizes], ids=["exponential", "two sizes"])
def test_processor_sharing_depends_on_the_mean_alone(law: Law) -> None:
    # M/G/1-PS: E[T] = E[S] / (1 - rho), whatever the law of S (Kleinrock, 1967).
    provider = {"model": "shared", "capacity": 1, "tokens_per_s": TOKENS_PER_S, "ttft_s": 0.0}
    work = poisson_workload(0.6, law, count=60_000, seed=7)

    found = batch_means(sojourns(Direct(), provider, work))

    assert found.holds(1.0 / (1.0 - 0.6))
    assert found.half < 0.35 * found.mean


def test_a_hidden_fifo_queue_pays_for_uneven_sizes_as_pollaczek_and_khinchine_say() -> None:
    # M/G/1: E[W] = rate x E[S^2] / (2 (1 - rho)).
    second_moment = 0.9 * 0.2**2 + 0.1 * 8.2**2
    work = poisson_workload(0.5, two_sizes, count=60_000, seed=3)

    found = batch_means(waits(Direct(), slots(1), work))

    assert found.holds(0.5 * second_moment / (2 * (1 - 0.5)))


def test_replicas_that_are_drawn_wait_each_by_itself_as_erlang_says() -> None:
    # Thinning makes each of 4 replicas an M/M/2 queue with a quarter of the arrivals.
    pool = {"model": "pool", "replicas": 4, "slots": 2, "tokens_per_s": TOKENS_PER_S, "ttft_s": 0.0}
    work = poisson_workload(4 * 1.3, exponential(1.0), count=30_000, seed=11)

    found = batch_means(waits(Direct(), pool, work))

    assert found.holds(erlang_c_wait_s(1.3, 1.0, 2))
    assert found.half < 0.35 * found.mean


@pytest.mark.parametrize("law", [exponential(1.0), two_sizes], ids=["exponential", "two sizes"])
def test_an_engine_whose_iterations_grow_with_its_sequences_shares_its_processor(law: Law) -> None:
    # n sequences gain a token in n x 1 us: M/G/1-PS again, and nobody is ever refused a place.
    engine = {
        "model": "batching",
        "max_seqs": 100_000,
        "kv_tokens": 1_000_000_000,
        "iteration_base_s": 1e-6,
        "iteration_per_seq_s": 1e-3,
    }
    work = poisson_workload(0.6, law, count=30_000, seed=7)
    coarse = tuple(
        replace(each, output_tokens=-(-each.output_tokens // 1000)) for each in work.loads
    )

    found = batch_means(sojourns(Direct(), engine, replace(work, loads=coarse)))

    assert found.holds(1.0 / (1.0 - 0.6))
    assert found.half < 0.35 * found.mean


def test_an_engine_of_one_sequence_waits_as_pollaczek_and_khinchine_say() -> None:
    engine = {"model": "batching", "max_seqs": 1, "iteration_base_s": 1e-3}
    engine |= {"iteration_per_seq_s": 0.0, "kv_tokens": 1_000_000_000}
    work = poisson_workload(0.5, two_sizes, count=30_000, seed=3)
    coarse = tuple(
        replace(each, output_tokens=-(-each.output_tokens // 1000)) for each in work.loads
    )
    second_moment = 0.9 * 0.2**2 + 0.1 * 8.2**2

    found = batch_means(sojourns(Direct(), engine, replace(work, loads=coarse)))

    assert found.holds(1.0 + 0.5 * second_moment / (2 * (1 - 0.5)))
    assert found.half < 0.35 * found.mean
