"""`linear`: what a request takes is settled when it comes in."""

import math

import pytest

from penstock.sim.providers.base import Job, Provider
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import drain, ends, firsts, run

LINEAR = {"model": "linear", "base_s": 0.1, "s_per_token": 0.01, "capacity": 2, "gamma": 0.5}


def linear(**params: object) -> Provider:
    return build_provider({**LINEAR, "jitter": 0.0, **params}, seed=3)


def test_a_lone_request_takes_base_plus_tokens() -> None:
    seen = run(linear(), [(1.0, 1, 50)])

    assert firsts(seen) == {1: 1.1}
    assert ends(seen) == {1: 1.6}


def test_beyond_capacity_the_newcomer_pays_and_the_others_do_not() -> None:
    # The third of three on capacity 2 pays 1 + 0.5 x (3/2 - 1) = 1.25.
    seen = run(linear(), [(0.0, n, 90) for n in (1, 2, 3)])

    assert ends(seen) == {1: 1.0, 2: 1.0, 3: 1.25}


def test_jitter_depends_on_the_request_and_the_seed_not_on_the_order_of_dispatch() -> None:
    one = ends(run(linear(jitter=0.3, gamma=0.0), [(0.0, 1, 90), (0.0, 2, 90)]))
    other = ends(run(linear(jitter=0.3, gamma=0.0), [(0.0, 2, 90), (0.0, 1, 90)]))

    assert one == other
    assert one[1] != one[2]


def test_jitter_is_lognormal_with_the_given_sigma() -> None:
    provider = linear(jitter=0.2, gamma=0.0)

    logs = [
        math.log(at) for at in ends(run(provider, [(0.0, n, 90) for n in range(4000)])).values()
    ]

    mean = sum(logs) / len(logs)
    sigma = math.sqrt(sum((x - mean) ** 2 for x in logs) / len(logs))
    assert mean == pytest.approx(0.0, abs=4 * 0.2 / math.sqrt(4000))
    assert sigma == pytest.approx(0.2, rel=0.05)


def test_a_cancelled_request_no_longer_counts_as_in_flight() -> None:
    provider = linear(capacity=1)
    provider.submit(Job(1, 90), now=0.0)
    provider.cancel(1, now=0.1)
    provider.submit(Job(2, 90), now=0.1)

    assert ends(drain(provider, until=9.0)) == {2: 1.1}
    assert provider.load().active == 0


def test_parameters_that_change_hold_for_those_who_come_later() -> None:
    provider = linear(changes=[{"at_s": 5.0, "s_per_token": 0.02}])

    assert ends(run(provider, [(4.0, 1, 100), (5.0, 2, 100)])) == {1: 5.1, 2: 7.1}


def test_tokens_appear_evenly_after_the_base_time() -> None:
    provider = linear()
    provider.submit(Job(1, 10), now=0.0)

    assert provider.tokens_done(1, now=0.05) == 0
    provider.advance(now=0.1)
    assert [provider.tokens_done(1, now=0.1 + t) for t in (0.0, 0.05, 0.099)] == [1, 5, 9]
