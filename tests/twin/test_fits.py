"""What a log of a provider says of it: the kind, its numbers, its door and what changes."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from penstock.core.events import LimitsSeen
from penstock.sim.providers.places import STEEPEST_THETA
from penstock.sim.providers.registry import build_provider
from penstock.twin.capacity import path_of
from penstock.twin.check import split_at
from penstock.twin.flights import flights_of
from penstock.twin.history import Attempt, History
from penstock.twin.kinds import fits, told_later
from penstock.twin.limits import limits_of, troubles_of
from penstock.twin.model import twin_of
from penstock.twin.told import KindNumbers
from tests.twin.histories import DIRECT, PROMPTS, SPEED, history


@pytest.mark.parametrize(
    ("provider", "workload"),
    [
        ({"model": "slots", "slots": 6, "beta": 0.04, **SPEED}, {}),
        ({"model": "shared", "capacity": 5, **SPEED}, {}),
        ({"model": "thrash", "capacity": 5, "theta": 0.5, **SPEED}, {}),
        (
            {"model": "linear", "capacity": 4, "base_s": 0.2, "s_per_token": 0.006, "jitter": 0.0},
            {},
        ),
        ({"model": "slots", "slots": 6, "prefill_tokens_per_s": 2000.0, **SPEED}, PROMPTS),
        (
            {
                "model": "pool",
                "replicas": 3,
                "slots": 2,
                "routing": "round_robin",
                **SPEED,
            },
            {},
        ),
    ],
    ids=["slots", "shared", "thrash", "linear", "prompts", "pool"],
)
def test_a_provider_without_luck_is_found_to_the_figure(
    provider: dict[str, Any], workload: dict[str, Any]
) -> None:
    best = fits(flights_of(history(provider, **workload).attempts))[0]

    assert best.kind == provider["model"]
    assert best.error < 0.002
    for key, value in provider.items():
        assert best.table[key] == (
            value if isinstance(value, str) else pytest.approx(value, rel=0.01, abs=1e-9)
        )


def test_a_number_is_not_rounded_for_whole_queues_hang_on_its_last_figure() -> None:
    speed = {"tokens_per_s": 84.53621241480576, "ttft_s": 0.5957982544802519}
    past = history({"model": "slots", "slots": 6, **speed}, rate_per_s=1.0)

    best = fits(flights_of(past.attempts))[0]

    assert best.table["tokens_per_s"] == pytest.approx(84.53621241480576, rel=1e-12)
    assert best.table["ttft_s"] == pytest.approx(0.5957982544802519, rel=1e-12)


def test_every_kind_that_is_found_is_a_provider_that_can_be() -> None:
    """Where two were hardly ever served at once, no slowing was too steep to tell that."""
    provider = {"model": "slots", "slots": 1, "changes": [{"at_s": 300, "slots": 3}], **SPEED}
    found = fits(flights_of(history(provider, rate_per_s=0.05, requests=150).attempts))

    assert next(f for f in found if f.kind == "thrash").table["theta"] == STEEPEST_THETA
    for each in found:
        build_provider(each.table, seed=1)


def test_luck_and_stragglers_are_told_apart() -> None:
    slow = {"share": 0.03, "factor": 8.0}
    provider = {"model": "slots", "slots": 8, "jitter": 0.15, "stragglers": slow, **SPEED}
    past = history(provider, rate_per_s=1.5, requests=800)

    best = next(f for f in fits(flights_of(past.attempts)) if f.kind == "slots")

    assert best.table["jitter"] == pytest.approx(0.15, rel=0.15)
    assert best.table["stragglers"]["factor"] == pytest.approx(8.0, rel=0.25)
    assert 0.015 < best.table["stragglers"]["share"] < 0.045


@pytest.mark.slow
@pytest.mark.parametrize("at_s", [100.0, 170.0], ids=["half-way", "near the end"])
def test_a_capacity_that_changes_is_seen_when_it_does(at_s: float) -> None:
    changes = [{"at_s": at_s, "slots": 3}]
    provider = {"model": "slots", "slots": 8, "changes": changes, **SPEED}

    best = fits(flights_of(history(provider).attempts))[0]

    assert best.kind == "slots"
    assert [each["slots"] for each in best.table["changes"]] == [3]
    assert best.table["changes"][0]["at_s"] == pytest.approx(at_s, abs=15.0)


@pytest.mark.slow
def test_a_capacity_that_was_seen_to_move_may_move_again_when_the_log_shows_it() -> None:
    moves = [{"at_s": at, "slots": n} for at, n in ((45.0, 3), (90.0, 9), (150.0, 3))]
    shown = {"capacity": {"kind": "fixed", "window": 12}}  # so that each move meets a full provider
    provider = {"model": "slots", "slots": 9, "jitter": 0.05, "changes": moves, **SPEED}
    past = history(provider, stack=shown)
    flights = flights_of(past.attempts)

    early = next(fit for fit in fits(flights.until(split_at(past))) if fit.kind == "slots")
    later = told_later(early, None, flights)

    assert [each["slots"] for each in early.table["changes"]] == [3, 9]
    assert [each["slots"] for each in later.table["changes"]] == [3, 9, 3]
    assert later.table["changes"][-1]["at_s"] == pytest.approx(150.0, abs=10.0)
    assert later.told.line == early.told.line


def test_a_bound_that_the_first_part_never_met_is_read_from_what_came_later() -> None:
    """A model without one must not turn the most that flew into one."""
    past = history({"model": "slots", "slots": 8, **SPEED})
    flights = flights_of(past.attempts)
    whole = next(fit for fit in fits(flights) if fit.kind == "slots")
    few = replace(whole, told=replace(whole.told, numbers=KindNumbers(3)), bounded=False)

    assert told_later(few, whole, flights).table["slots"] == 8
    assert told_later(replace(few, bounded=True), whole, flights).table["slots"] == 3
    assert told_later(few, None, flights).table["slots"] == 3


def test_a_slowing_that_the_first_part_never_met_is_read_from_what_came_later_too() -> None:
    provider = {"model": "linear", "capacity": 4, "base_s": 0.2, "s_per_token": 0.006}
    flights = flights_of(history({**provider, "gamma": 0.5}).attempts)
    whole = next(fit for fit in fits(flights) if fit.kind == "linear")
    few = replace(whole, told=replace(whole.told, numbers=KindNumbers(9, 2.0)), bounded=False)

    later = told_later(few, whole, flights)

    assert later.told.numbers == whole.told.numbers
    assert later.error == pytest.approx(whole.error)


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({"rpm": 80.0, "burst_s": 10.0, "dialect": "openai"}, {"rpm": 80.0}),
        ({"rpm": 30.0, "tpm": 60_000.0, "burst_s": 1.0, "dialect": "openai"}, {"rpm": 30.0}),
        ({"tpm": 20_000.0, "burst_s": 10.0, "silent": True}, {"tpm": 20_000.0}),
        ({"rpm": 80.0, "burst_s": 10.0, "silent": True}, {"rpm": 80.0}),
    ],
    ids=["stated", "one request at a time", "tokens, silent", "requests, silent"],
)
def test_limits_are_found_stated_or_not(limits: dict[str, Any], expected: dict[str, float]) -> None:
    past = history({"model": "slots", "slots": 30, "limits": limits, **SPEED})

    found = limits_of(past.attempts, past.calls, stated_in(past))

    assert found is not None
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=0.1)
    assert found["burst_s"] == pytest.approx(limits["burst_s"], rel=0.5)
    assert ("silent" in found) == ("silent" in limits)


def test_what_a_bucket_holds_is_read_from_when_it_is_full_again() -> None:
    """Every reply says what is left without its own tokens, so that it is never seen full."""
    stated = [
        LimitsSeen("main", limit_tokens=4000.0, remaining_tokens=left, reset_tokens_s=reset_s)
        for left, reset_s in ((1600.0, 6.0), (1000.0, 15.0), (1400.0, 9.0))
    ]

    assert limits_of([], [], stated) == {"tpm": 4000.0, "burst_s": 30.0, "dialect": "openai"}


def test_two_limits_that_nobody_states_are_each_found() -> None:
    """Whom one of the buckets refused says nothing of what the other one holds."""
    limits = {"rpm": 60.0, "tpm": 40_000.0, "burst_s": 10.0, "silent": True}
    prompts = {"median": 400, "sigma": 1.0, "most": 8000}
    provider = {"model": "slots", "slots": 30, "limits": limits, **SPEED}
    past = history(provider, prompt_tokens=prompts)

    found = limits_of(past.attempts, past.calls, [])

    assert found is not None
    assert found["rpm"] == pytest.approx(60.0, rel=0.01)
    assert found["tpm"] == pytest.approx(40_000.0, rel=0.01)
    assert found["burst_s"] == pytest.approx(10.0, rel=0.02)


def stated_in(past: History) -> list[LimitsSeen]:
    return [event for _, event in past.events if isinstance(event, LimitsSeen)]


@pytest.mark.slow
def test_the_limits_are_of_the_twin() -> None:
    limits = {"rpm": 80.0, "burst_s": 10.0, "dialect": "openai"}
    past = history({"model": "slots", "slots": 30, "limits": limits, **SPEED})

    table = twin_of(past).providers["default"]

    assert table["limits"] == limits_of(past.attempts, past.calls, stated_in(past))


def test_a_limit_that_the_first_part_never_met_is_read_from_what_came_later() -> None:
    """What was saved up in a minute lasts until the split; then a third is refused."""
    limits = {"rpm": 85.0, "burst_s": 60.0, "silent": True}
    past = history({"model": "slots", "slots": 40, "limits": limits, **SPEED}, stack=DIRECT)
    assert min(a.sent_at for a in past.attempts if a.refused) > split_at(past)

    twin = twin_of(past)

    assert twin.early["default"][0].table["limits"]["rpm"] == pytest.approx(85.0, rel=0.01)
    assert twin.check.passed, twin.check.faults


def test_an_upstream_that_refuses_nobody_has_no_door() -> None:
    past = history({"model": "slots", "slots": 6, **SPEED})

    assert limits_of(past.attempts, past.calls, []) is None
    assert troubles_of(past.attempts) == []


def test_times_of_trouble_are_windows_of_faults() -> None:
    faults = [{"kind": "status", "status": 503, "from_s": 40.0, "until_s": 60.0, "share": 0.7}]
    past = history({"model": "slots", "slots": 6, "faults": faults, **SPEED})

    (window,) = troubles_of(past.attempts)

    assert 38.0 < window["from_s"] < 50.0
    assert 50.0 < window["until_s"] < 61.0
    assert 0.4 < window["share"] <= 1.0


@pytest.mark.slow
def test_a_move_that_one_kind_sees_is_tried_with_the_others() -> None:
    """With one number throughout, the line of `slots` is so far off that no move shows on it."""
    slots = {"slots": 6, "beta": 0.02, "jitter": 0.2, "prefill_tokens_per_s": 12935.0}
    changes = [{"at_s": 33.7, "slots": 3}]
    past = history(
        {"model": "slots", **slots, "tokens_per_s": 269.0, "ttft_s": 0.436, "changes": changes},
        prompt_tokens={"median": 2560, "sigma": 0.5, "most": 10000},
        information="oracle",
        rate_per_s=1.6,
        stack=DIRECT,
    )

    best = fits(flights_of(past.attempts).until(split_at(past)))[0]

    assert best.kind == "slots"
    assert [best.table["slots"]] + [each["slots"] for each in best.table["changes"]] == [6, 3]


def test_two_moves_in_neighbouring_stretches_are_in_order() -> None:
    """Both may be found in the stretch between them, in which either number tells a part well."""
    attempts = [
        Attempt(nth, "main", float(nth), ended_at=nth + 1.0, end="completed") for nth in range(80)
    ]
    errors = {
        1: [0.0] * 35 + [2.0] * 5 + [1.0] * 40,
        2: [1.0] * 20 + [0.1] * 15 + [0.0] * 5 + [1.0] * 40,
        3: [1.0] * 20 + [2.0] * 5 + [0.05] * 10 + [0.0] * 45,
    }
    path = path_of(flights_of(attempts), [1, 2, 3], lambda places: np.array(errors[places]))

    assert path is not None
    assert path.places == (1, 2, 3)
    assert path.changes("slots") == [{"at_s": 35.0, "slots": 2}, {"at_s": 36.0, "slots": 3}]
