"""`cloud`: what others leave."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sim.providers.base import Job
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import drain, ends, run

CLOUD = {"model": "cloud", "capacity": 10, "tokens_per_s": 10.0, "ttft_s": 0.0, "sigma": 0.0}
OUTSIDE = ["walk", "daily", "sudden"]


@pytest.mark.parametrize(("queue", "model"), [(True, "slots"), (False, "shared")])
@given(gaps=st.lists(st.tuples(st.floats(0.0, 1.0), st.integers(0, 60)), min_size=1, max_size=25))
def test_with_nobody_outside_it_is_slots_or_shared(
    queue: bool, model: str, gaps: list[tuple[float, int]]
) -> None:
    at, arrivals = 0.0, []
    for number, (gap, tokens) in enumerate(gaps):
        at += gap
        arrivals.append((at, number, tokens))
    plain = {"model": model, "tokens_per_s": 10.0, "ttft_s": 0.0}
    plain |= {"slots": 10} if queue else {"capacity": 10}

    assert run(build_provider({**CLOUD, "queue": queue}, seed=1), arrivals) == run(
        build_provider(plain, seed=1), arrivals
    )


def places_over_time(outside: str, *, hours: float, **more: object) -> list[int]:
    """Return how many of a crowd are in service, every 5 s: what is left for us."""
    table = {**CLOUD, "capacity": 100, "tokens_per_s": 100.0, "outside": outside, **more}
    provider = build_provider(table, seed=1)
    found = []
    for number in range(40_000):
        provider.submit(Job(number, 100), now=0.0)
    for step in range(int(hours * 720)):
        drain(provider, until=5.0 * step + 3.0)
        found.append(provider.load().active)
    return found


@pytest.mark.parametrize("outside", OUTSIDE)
def test_others_take_no_more_than_their_share_and_it_moves(outside: str) -> None:
    found = places_over_time(outside, hours=0.1, outside_share=0.6, outside_s=30.0)

    assert 39 <= min(found) < 65
    assert max(found) > 75


def test_a_day_is_a_cosine_that_begins_with_nobody() -> None:
    found = places_over_time("daily", hours=0.05, outside_share=0.5, outside_s=60.0)

    assert found[0] == 100
    assert found[6] == pytest.approx(50, abs=2)
    assert found[12] == pytest.approx(100, abs=4)


def test_others_who_take_everything_leave_room_for_one() -> None:
    table = {**CLOUD, "outside": "daily", "outside_share": 1.0, "outside_s": 12.0}
    provider = build_provider(table, seed=1)

    assert len(ends(run(provider, [(0.0, n, 200) for n in range(100)]))) == 100


@pytest.mark.parametrize("outside", OUTSIDE)
@pytest.mark.parametrize("queue", [True, False])
def test_an_idle_cloud_has_nothing_to_tell(outside: str, queue: bool) -> None:
    provider = build_provider({**CLOUD, "outside": outside, "queue": queue}, seed=1)

    assert provider.next_event_at() == float("inf")
    assert ends(run(provider, [(86_400.0, 1, 10)])) == {1: 86_401.0}
    assert provider.next_event_at() == float("inf")


def test_a_change_of_the_others_begins_when_it_is_due() -> None:
    changes = [{"at_s": 50.0, "outside": "sudden", "outside_share": 0.9, "outside_s": 5.0}]

    found = places_over_time("none", hours=0.03, changes=changes)

    assert set(found[:10]) == {100}
    assert min(found[10:]) < 60
