"""Spells of slowness, against a speed that is summed up in small steps."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.sim.providers.base import Job
from penstock.sim.providers.faulty import SpellClock, Spells
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import drain, ends, run

ONE = {"model": "slots", "slots": 1, "tokens_per_s": 10.0, "ttft_s": 0.0}
SPELLS = {"factor": 0.1, "every_s": 60.0, "for_s": 10.0}

clocks = st.builds(
    lambda factor, every_s, part, seed: SpellClock(
        Spells(factor=factor, every_s=every_s, for_s=part * every_s), seed=seed
    ),
    st.floats(0.001, 1.0),
    st.floats(0.1, 1000.0),
    st.floats(0.01, 0.99),
    st.integers(0, 1000),
)


@given(clock=clocks, times=st.lists(st.floats(0.0, 1e5), min_size=2, max_size=20))
def test_the_two_clocks_undo_each_other_and_never_go_back(
    clock: SpellClock, times: list[float]
) -> None:
    times.sort()
    lived = [clock.to_provider_s(at) for at in times]

    assert lived == pytest.approx(sorted(lived), abs=1e-6)
    assert [clock.to_provider_s(clock.to_owner_s(each)) for each in lived] == pytest.approx(
        lived, abs=1e-5
    )
    assert all(0.0 <= here <= at + 1e-6 for here, at in zip(lived, times, strict=True))


def test_in_each_period_just_so_much_is_lost() -> None:
    clock = SpellClock(Spells(factor=0.1, every_s=60.0, for_s=10.0), seed=3)

    assert [clock.to_provider_s(60.0 * n) for n in range(5)] == pytest.approx(
        [51.0 * n for n in range(5)]
    )


def test_work_is_done_at_the_speed_of_the_hour() -> None:
    clock = SpellClock(Spells(factor=0.1, every_s=60.0, for_s=10.0), seed=1)
    step = 0.001
    speeds = [
        (clock.to_provider_s(n * step + step) - clock.to_provider_s(n * step)) / step
        for n in range(60_000)
    ]

    slow = [round(speed, 6) for speed in speeds]

    assert slow.count(0.1) == pytest.approx(10_000, abs=2)
    assert slow.count(1.0) == pytest.approx(50_000, abs=2)
    first = slow.index(0.1)
    assert set(slow[first + 1 : first + 9_999]) == {0.1}


@pytest.mark.parametrize(
    "model",
    [
        ONE,
        {"model": "shared", "capacity": 1, "tokens_per_s": 10.0, "ttft_s": 0.0},
        {"model": "linear", "base_s": 0.0, "s_per_token": 0.1, "jitter": 0.0},
        {"model": "batching", "iteration_base_s": 0.1, "iteration_per_seq_s": 0.0},
    ],
    ids=lambda table: table["model"],
)
def test_every_model_ends_when_its_work_is_done_on_the_slow_clock(model: dict[str, object]) -> None:
    clock = SpellClock(Spells(**SPELLS), seed=1)

    found = ends(run(build_provider({**model, "spells": SPELLS}, seed=1), [(7.0, 1, 2000)]))

    assert found[1] == pytest.approx(clock.to_owner_s(clock.to_provider_s(7.0) + 200.0), abs=1e-5)


def test_changes_keep_their_hour() -> None:
    changes = [{"at_s": 100.0, "tokens_per_s": 1e6}]
    provider = build_provider({**ONE, "spells": SPELLS, "changes": changes}, seed=1)

    assert ends(run(provider, [(0.0, 1, 5000)]))[1] == pytest.approx(100.0, abs=0.1)


@given(gaps=st.lists(st.tuples(st.floats(0.0, 30.0), st.integers(0, 300)), min_size=1, max_size=15))
def test_whoever_waits_for_the_next_event_finds_it(gaps: list[tuple[float, int]]) -> None:
    provider = build_provider({**ONE, "spells": SPELLS}, seed=2)
    now, expected = 0.0, 0
    for number, (gap, tokens) in enumerate(gaps):
        now += gap
        drain(provider, until=now)
        provider.submit(Job(number, tokens), now=now)
        expected += 1

    steps = 0
    while (at := provider.next_event_at()) < 1e9:
        assert at >= now
        now = at
        provider.advance(now=now)
        steps += 1

    assert steps <= 2 * expected
    assert provider.load().active == 0
