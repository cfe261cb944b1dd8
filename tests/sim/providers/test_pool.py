"""`pool`: a queue at each replica, and a balancer that may not see it."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sim.providers.base import Job
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import drain, ends, run

TWO = {"model": "pool", "replicas": 2, "slots": 1, "tokens_per_s": 10.0, "ttft_s": 0.0}


def test_in_turn_a_request_waits_behind_a_long_one_while_the_other_replica_idles() -> None:
    provider = build_provider({**TWO, "routing": "round_robin"}, seed=0)

    seen = run(provider, [(0.0, 1, 100), (0.0, 2, 10), (2.0, 3, 10)])

    assert ends(seen) == {1: 10.0, 2: 1.0, 3: 11.0}


def test_the_least_busy_replica_takes_it_at_once() -> None:
    provider = build_provider({**TWO, "routing": "least"}, seed=0)

    seen = run(provider, [(0.0, 1, 100), (0.0, 2, 10), (2.0, 3, 10)])

    assert ends(seen) == {1: 10.0, 2: 1.0, 3: 3.0}


def test_random_routing_gives_each_replica_its_part() -> None:
    provider = build_provider({**TWO, "replicas": 4, "slots": 10_000}, seed=1)
    chosen: Counter[int] = Counter()
    alone = build_provider({**TWO, "replicas": 4, "slots": 1}, seed=1)
    for number in range(2000):
        provider.submit(Job(number, 10), now=0.0)
        alone.submit(Job(number, 10), now=0.0)
    assert provider.load().active == 2000

    # With one place each, a replica's last job tells how many it was given.
    for at in ends(drain(alone, until=1e9)).values():
        chosen[round(at)] += 1

    assert max(chosen) < 600
    assert chosen[1] == 4


def test_a_replica_that_is_taken_away_finishes_what_it_has() -> None:
    table = {**TWO, "routing": "round_robin", "changes": [{"at_s": 1.0, "replicas": 1}]}

    seen = run(build_provider(table, seed=0), [(0.0, 1, 50), (0.0, 2, 50), (1.0, 3, 10)])

    assert ends(seen) == {1: 5.0, 2: 5.0, 3: 6.0}


def test_a_cancelled_request_frees_its_place_at_its_replica() -> None:
    provider = build_provider({**TWO, "routing": "round_robin"}, seed=0)
    for number in (1, 2, 3):
        provider.submit(Job(number, 100), now=0.0)

    provider.cancel(1, now=2.0)
    provider.cancel(99, now=2.0)

    assert ends(drain(provider, until=1e9)) == {2: 10.0, 3: 12.0}


@pytest.mark.parametrize("routing", ["random", "round_robin", "least"])
@given(gaps=st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 60)), min_size=1, max_size=20))
def test_a_pool_of_one_replica_is_slots(routing: str, gaps: list[tuple[float, int]]) -> None:
    at, arrivals = 0.0, []
    for number, (gap, tokens) in enumerate(gaps):
        at += gap
        arrivals.append((at, number, tokens))
    pool = {**TWO, "replicas": 1, "slots": 2, "routing": routing}
    plain = {"model": "slots", "slots": 2, "tokens_per_s": 10.0, "ttft_s": 0.0}

    assert run(build_provider(pool, seed=0), arrivals) == run(
        build_provider(plain, seed=0), arrivals
    )
