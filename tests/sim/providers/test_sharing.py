"""`shared` and `thrash` against a plain simulation in small steps of what PAPER.md says."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.bounds import FARTHEST_S
from penstock.sim.providers.base import Job
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import drain, ends, firsts, run

SHARED = {"model": "shared", "capacity": 2, "tokens_per_s": 100.0, "ttft_s": 0.5}
THRASH = {**SHARED, "model": "thrash", "theta": 1.0}


def test_up_to_capacity_nobody_slows_down() -> None:
    seen = run(build_provider(SHARED, seed=0), [(0.0, 1, 100), (0.0, 2, 50)])

    assert ends(seen) == {1: 1.5, 2: 1.0}


def test_beyond_capacity_first_token_and_tokens_stretch_alike() -> None:
    seen = run(build_provider(SHARED, seed=0), [(0.0, n, 100) for n in range(1, 5)])

    assert firsts(seen) == dict.fromkeys(range(1, 5), 1.0)
    assert ends(seen) == dict.fromkeys(range(1, 5), 3.0)


def test_thrash_loses_throughput_beyond_capacity_where_shared_does_not() -> None:
    # Four on two places: each gets (2/4)^(1+1) = 1/4 of full speed.
    seen = run(build_provider(THRASH, seed=0), [(0.0, n, 100) for n in range(1, 5)])

    assert firsts(seen) == dict.fromkeys(range(1, 5), 2.0)
    assert ends(seen) == dict.fromkeys(range(1, 5), 6.0)


def test_a_cancelled_request_gives_its_share_to_the_others() -> None:
    provider = build_provider({**SHARED, "capacity": 1, "ttft_s": 0.0}, seed=0)
    for job_id in (1, 2):
        provider.submit(Job(job_id, 100), now=0.0)
    drain(provider, until=1.0)

    provider.cancel(1, now=1.0)

    assert ends(drain(provider, until=10.0)) == {2: 1.5}


def test_capacity_that_changes_changes_everyones_speed() -> None:
    table = {**SHARED, "ttft_s": 0.0, "changes": [{"at_s": 1.0, "capacity": 1}]}

    seen = run(build_provider(table, seed=0), [(0.0, 1, 200), (0.0, 2, 200)])

    assert ends(seen) == {1: 3.0, 2: 3.0}


Arrival = tuple[float, int]


def small_steps(
    arrivals: list[Arrival], speed: Callable[[int], float], ttft_s: float, tokens_per_s: float
) -> list[float]:
    """The same model without cleverness: move every job at every event, one by one."""
    left = {n: ttft_s + tokens / tokens_per_s for n, (_, tokens) in enumerate(arrivals)}
    coming = sorted((at, n) for n, (at, _) in enumerate(arrivals))
    inside: list[int] = []
    ended = [0.0] * len(arrivals)
    now = 0.0
    while coming or inside:
        share = speed(len(inside)) if inside else 1.0
        first = min((now + left[n] / share, n) for n in inside) if inside else (float("inf"), -1)
        if coming and coming[0][0] <= first[0]:
            at, newcomer = coming.pop(0)
            for n in inside:
                left[n] -= (at - now) * share
            inside.append(newcomer)
            now = at
        else:
            at, done = first
            for n in inside:
                left[n] -= (at - now) * share
            inside.remove(done)
            ended[done] = at
            now = at
    return ended


@pytest.mark.parametrize(
    ("table", "speed"),
    [
        (SHARED, lambda n: min(1.0, 2 / n)),
        (THRASH, lambda n: min(1.0, 2 / n) ** 2.0),
    ],
    ids=["shared", "thrash"],
)
@given(gaps=st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 400)), min_size=1, max_size=12))
def test_virtual_time_agrees_with_moving_every_job_at_every_event(
    table: dict[str, object], speed: Callable[[int], float], gaps: list[Arrival]
) -> None:
    at, arrivals = 0.0, []
    for gap, tokens in gaps:
        at += gap
        arrivals.append((at, tokens))
    expected = small_steps(arrivals, speed, 0.5, 100.0)

    seen = run(
        build_provider(table, seed=0), [(t, n, tokens) for n, (t, tokens) in enumerate(arrivals)]
    )

    found = ends(seen)
    assert [found[n] for n in range(len(arrivals))] == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
    "table",
    [
        SHARED,
        THRASH,
        {"model": "slots", "slots": 2, "tokens_per_s": 100.0, "ttft_s": 0.5},
        {"model": "slots", "slots": 2, "tokens_per_s": 100.0, "ttft_s": 0.5, "beta": 0.3},
        {**SHARED, "changes": [{"at_s": 2.0, "capacity": 1}]},
    ],
    ids=["shared", "thrash", "slots", "slots with beta", "shared that changes"],
)
@given(gaps=st.lists(st.tuples(st.floats(0.0, 3.0), st.integers(1, 400)), min_size=1, max_size=12))
def test_who_does_not_listen_for_first_tokens_sees_the_same_ends(
    table: dict[str, object], gaps: list[Arrival]
) -> None:
    at, arrivals = 0.0, []
    for number, (gap, tokens) in enumerate(gaps):
        at += gap
        arrivals.append((at, number, tokens))

    listening = ends(run(build_provider(table, seed=0), arrivals))
    not_listening = ends(run(build_provider(table, seed=0, first_tokens=False), arrivals))

    assert not_listening == pytest.approx(listening, abs=1e-5)


def test_the_largest_crowd_on_the_steepest_slope_ends_at_a_time_that_can_be_counted() -> None:
    provider = build_provider({**THRASH, "theta": 10.0}, seed=0)
    seen = run(provider, [(0.0, number, 100) for number in range(1000)])

    assert max(ends(seen).values()) < FARTHEST_S
