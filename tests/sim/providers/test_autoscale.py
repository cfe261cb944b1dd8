"""`autoscale`: replicas come while all places are taken, and go when one fewer would do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.errors import ConfigError
from penstock.sim.providers.base import Job, Provider
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import drain, ends, run

TABLE = {
    "model": "autoscale",
    "least": 1,
    "most": 3,
    "slots": 2,
    "tokens_per_s": 10.0,
    "ttft_s": 0.0,
    "step_after_s": 5.0,
    "cold_start_s": 20.0,
    "idle_s": 60.0,
}


def scaling(**more: object) -> Provider:
    return build_provider({**TABLE, **more}, seed=0)


def active_at(provider: Provider, *times: float) -> list[int]:
    found = []
    for at in times:
        drain(provider, until=at)
        found.append(provider.load().active)
    return found


def test_each_step_of_a_full_provider_starts_a_replica_that_serves_when_it_is_warm() -> None:
    provider = scaling()
    for number in range(8):
        provider.submit(Job(number, 10_000), now=0.0)

    # Started at 5 and at 10, ready 20 s later; three are the most.
    assert active_at(provider, 24.9, 25.0, 29.9, 30.0, 500.0) == [2, 4, 4, 6, 6]


def test_a_provider_that_is_never_full_never_grows() -> None:
    provider = scaling()
    provider.submit(Job(0, 10_000), now=0.0)

    drain(provider, until=400.0)
    for number in range(1, 8):
        provider.submit(Job(number, 10_000), now=400.0)

    assert provider.load().active == 2


def test_a_gap_starts_the_count_anew_but_a_place_that_is_filled_at_once_is_no_gap() -> None:
    refilled, gapped = scaling(), scaling()
    for provider, again_at in ((refilled, 4.0), (gapped, 4.5)):
        provider.submit(Job(1, 10_000), now=0.0)
        provider.submit(Job(2, 40), now=0.0)
        drain(provider, until=again_at)
        for number in (3, 4, 5):
            provider.submit(Job(number, 10_000), now=again_at)

    assert active_at(refilled, 24.9, 25.0) == [2, 4]
    assert active_at(gapped, 25.0, 29.4, 29.5) == [2, 2, 4]


def test_room_that_nobody_needs_goes_after_a_while_and_its_jobs_finish() -> None:
    provider = scaling(idle_s=10.0)
    for number in range(4):
        provider.submit(Job(number, 300 if number < 2 else 400), now=0.0)

    drain(provider, until=60.0)  # grown to two replicas at 25, empty again at 65
    assert provider.load().active == 2
    drain(provider, until=200.0)
    for number in range(10, 14):
        provider.submit(Job(number, 10), now=200.0)

    assert provider.load().active == 2


def test_most_below_least_is_refused_in_changes_too() -> None:
    for table in ({"most": 0}, {"least": 5}, {"changes": [{"at_s": 1, "least": 4}]}):
        with pytest.raises(ConfigError, match=r"provider.*most = "):
            scaling(**table)


def test_bounds_that_change_hold_from_then_on() -> None:
    provider = scaling(changes=[{"at_s": 2.0, "least": 3}])
    for number in range(8):
        provider.submit(Job(number, 10_000), now=0.0)

    assert active_at(provider, 1.9, 2.0) == [2, 6]


@given(gaps=st.lists(st.tuples(st.floats(0.0, 9.0), st.integers(0, 200)), min_size=1, max_size=25))
def test_where_least_is_most_it_is_slots(gaps: list[tuple[float, int]]) -> None:
    at, arrivals = 0.0, []
    for number, (gap, tokens) in enumerate(gaps):
        at += gap
        arrivals.append((at, number, tokens))
    plain = {"model": "slots", "slots": 2, "tokens_per_s": 10.0, "ttft_s": 0.0}

    assert ends(run(scaling(most=1), arrivals)) == pytest.approx(
        ends(run(build_provider(plain, seed=0), arrivals)), abs=1e-6
    )
