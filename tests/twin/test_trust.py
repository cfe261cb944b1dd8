"""How far a twin may be trusted, and how wide that leaves what another policy would change."""

from dataclasses import replace
from typing import Any

import pytest

from penstock.twin.check import Check, check, split_at
from penstock.twin.flights import flights_of
from penstock.twin.kinds import Fit, fitted
from penstock.twin.model import checked, twin_of
from penstock.twin.policy import read_policy
from penstock.twin.rerun import rerun
from penstock.twin.shadow import DIRECT_POLICY
from penstock.twin.told import TELL
from penstock.twin.whatif import whatif
from tests.twin.histories import PROMPTS, SPEED, history

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("more", "runs"),
    [({}, 1), ({"limits": {"rpm": 6000.0}}, 3)],
    ids=["nothing", "refusals"],
)
def test_as_many_runs_are_made_as_chance_asks_for(
    more: dict[str, Any], runs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run of a long log takes a second, and where all luck is known another says no more."""
    provider = {"model": "slots", "slots": 6, **SPEED, **more}
    past = history(provider)
    luck = dict.fromkeys(range(len(past.calls)), (1.0, 1.0))
    seeds: list[int] = []

    def counted(*args: Any, seed: int, **others: Any) -> Any:
        seeds.append(seed)
        return rerun(*args, seed=seed, **others)

    monkeypatch.setattr("penstock.twin.check.rerun", counted)
    check(past, {"default": provider}, split_at(past), luck=luck)

    assert len(seeds) == runs


@pytest.mark.parametrize(
    "unlucky",
    [
        {"jitter": 0.4},
        {"jitter": 0.1, "stragglers": {"share": 0.05, "factor": 10.0}},
        {"spells": {"factor": 0.2, "every_s": 60.0, "for_s": 15.0}},
        {"prefill_tokens_per_s": 800.0, "cached_share": 0.5},
    ],
    ids=["jitter", "stragglers", "slow spells", "prompts that are cached or not"],
)
def test_what_a_call_met_in_the_log_it_meets_again(unlucky: dict[str, Any]) -> None:
    prompts = PROMPTS if "cached_share" in unlucky else {}
    past = history({"model": "slots", "slots": 6, **SPEED, **unlucky}, stream=0.5, **prompts)

    check = twin_of(past).check

    assert check.passed, check.faults


def with_places(fit: Fit, times: float, past: Any) -> Fit:
    """The same kind with so many times the places, on the line that then tells best."""
    numbers = fit.told.numbers
    assert isinstance(numbers.places, int)
    seen = flights_of(past.attempts).until(split_at(past))
    places = replace(numbers, places=round(numbers.places * times))
    return fitted(fit, TELL[fit.kind](seen, places, None))


def test_a_wrong_twin_is_found_out_although_every_call_keeps_its_luck() -> None:
    """Luck does not know how many flew, and nobody is served before it is their turn."""
    provider = {"model": "slots", "slots": 6, "jitter": 0.1, **SPEED}
    past = history(provider, stack=dict(DIRECT_POLICY["scheduler"]), rate_per_s=1.8)
    twin = twin_of(past)
    by_kind = {fit.kind: fit for fit in twin.early["default"]}
    slots = by_kind["slots"]

    def checked_with(fit: Fit) -> Check:
        return checked(past, {"default": [fit]}, twin.whole, fit.kind, split_at(past))

    assert checked_with(slots).distance < 0.5
    for wrong in (with_places(slots, 0.5, past), with_places(slots, 2.0, past), by_kind["shared"]):
        assert checked_with(wrong).distance > 3.0
        assert not checked_with(wrong).passed


def test_a_provider_that_slows_down_after_the_split_is_not_the_one_that_was_fitted() -> None:
    slower = [{"at_s": 130.0, "tokens_per_s": 90.0}]
    past = history({"model": "slots", "slots": 6, "jitter": 0.1, "changes": slower, **SPEED})

    check = twin_of(past).check

    assert split_at(past) < 130.0
    assert any("worse than in the part that was fitted" in fault for fault in check.faults)


def test_where_no_bound_was_seen_a_roomier_model_widens_the_interval() -> None:
    light = twin_of(
        history({"model": "slots", "slots": 40, "jitter": 0.1, **SPEED}, rate_per_s=0.5)
    )
    busy = twin_of(history({"model": "slots", "slots": 6, **SPEED}))

    places = [next(iter(tables.values())) for tables, _ in light.others]
    assert any(table.get("slots", table.get("capacity", 0)) >= 20 for table in places)
    assert busy.others == ()


def test_a_second_provider_helps_and_is_said_to() -> None:
    past = history({"model": "slots", "slots": 5, **SPEED})
    more = {"upstreams": [{"name": "second", "like": "default", "input_usd_per_mtok": 1.0}]}

    everything = whatif(past, twin_of(past), read_policy(more, where="more"))[0]

    assert everything.figures["met"].sure
    assert everything.figures["met"].change > 0.05
    assert everything.figures["p95_s"].high < 0


def test_where_nothing_changes_the_interval_still_allows_for_what_was_not_seen() -> None:
    past = history({"model": "slots", "slots": 40, **SPEED}, rate_per_s=0.3)
    other = read_policy({"scheduler": {"queue_limit": 50_000}}, where="other")

    met = whatif(past, twin_of(past), other)[0].figures["met"]

    assert met.change == 0.0
    assert (met.low, met.high) == pytest.approx((-3.0 / 400, 3.0 / 400), rel=0.01)
    assert not met.sure


def test_of_two_kinds_that_only_rounding_tells_apart_the_plainest_is_the_twin() -> None:
    twin = twin_of(history({"model": "serial", **SPEED}, rate_per_s=0.8, information="oracle"))

    assert twin.kind == "slots"
    assert twin.check.distance < 0.1


def test_a_slowing_is_found_beside_places_that_moved() -> None:
    line = {"base_s": 0.1, "s_per_token": 0.007, "prefill_tokens_per_s": 2600.0, "jitter": 0.05}
    moves = {"capacity": 5, "gamma": 0.2, "changes": [{"at_s": 45.0, "capacity": 2}]}
    prompts = {"prompt_tokens": {"median": 1900, "sigma": 0.5, "most": 10000}}
    bursts = {"arrivals": "bursts", "on_s": 42.0, "off_s": 21.0, "rate_per_s": 0.8, "stream": 0.5}
    twin = twin_of(history({"model": "linear", **line, **moves}, **prompts, **bursts))

    (linear,) = [fit for fit in twin.early["default"] if fit.kind == "linear"]
    assert linear.table["gamma"] == pytest.approx(0.2, rel=0.05)
    assert twin.check.passed, twin.check.faults
