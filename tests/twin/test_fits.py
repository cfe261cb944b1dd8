"""What a log of a provider says of it: the kind, its numbers, its door and what changes."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tomlkit

from penstock.core.events import Arrived, Cancelled, Completed, Dispatch, Reconfigured
from penstock.metrics import RequestOutcome
from penstock.sim.providers.places import STEEPEST_THETA
from penstock.sim.providers.registry import build_provider
from penstock.twin.check import Check, check, split_at
from penstock.twin.flights import flights_of
from penstock.twin.history import TooLittle, history_of
from penstock.twin.kinds import Fit, fits, fitted, told_later
from penstock.twin.limits import limits_of, troubles_of
from penstock.twin.model import checked, twin_of
from penstock.twin.policy import read_policy
from penstock.twin.rerun import rerun, workload_of
from penstock.twin.scenario_file import scenario_text
from penstock.twin.shadow import DIRECT_POLICY
from penstock.twin.told import TELL, KindNumbers
from penstock.twin.whatif import whatif
from tests.twin.histories import DIRECT, PROMPTS, SPEED, history, lines_of


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


@pytest.mark.parametrize("at_s", [100.0, 170.0], ids=["half-way", "near the end"])
def test_a_capacity_that_changes_is_seen_when_it_does(at_s: float) -> None:
    changes = [{"at_s": at_s, "slots": 3}]
    provider = {"model": "slots", "slots": 8, "changes": changes, **SPEED}

    best = fits(flights_of(history(provider).attempts))[0]

    assert best.kind == "slots"
    assert [each["slots"] for each in best.table["changes"]] == [3]
    assert best.table["changes"][0]["at_s"] == pytest.approx(at_s, abs=15.0)


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
        ({"tpm": 20_000.0, "burst_s": 10.0, "silent": True}, {"tpm": 20_000.0}),
        ({"rpm": 80.0, "burst_s": 10.0, "silent": True}, {"rpm": 80.0}),
    ],
    ids=["stated", "tokens, silent", "requests, silent"],
)
def test_limits_are_found_stated_or_not(limits: dict[str, Any], expected: dict[str, float]) -> None:
    past = history({"model": "slots", "slots": 30, "limits": limits, **SPEED})

    twin = fits_of(past)

    for name, value in expected.items():
        assert twin["limits"][name] == pytest.approx(value, rel=0.1)
    assert twin["limits"]["burst_s"] == pytest.approx(limits["burst_s"], rel=0.5)
    assert ("silent" in twin["limits"]) == ("silent" in limits)


def fits_of(past: Any) -> dict[str, Any]:
    return twin_of(past).providers["default"]


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


def test_the_real_provider_with_the_same_luck_gives_the_same_run() -> None:
    past = history({"model": "slots", "slots": 6, **SPEED})

    again = rerun(past, {"default": {"model": "slots", "slots": 6, **SPEED}})

    ends = [record.ended_at for record in again.records]
    assert ends == pytest.approx([call.ended_at for call in past.calls], abs=1e-6)


@pytest.mark.parametrize("share", [0.0, 0.6], ids=["all of it", "from the split on"])
def test_a_refusal_is_heard_as_late_as_it_was_and_paused_after_as_long(share: float) -> None:
    """What one refusal draws does not hang on how many there were before it."""
    limits = {"rpm": 80.0, "burst_s": 10.0, "silent": True}
    provider = {"model": "slots", "slots": 30, "limits": limits, **SPEED}
    past = history(provider, refusal_s=0.2)
    since = share * past.calls[-1].request.arrived_at

    again = rerun(past, {"default": provider}, seed=99, since=since)

    assert sum(attempt.refused for attempt in past.attempts) > 20
    ends = [record.ended_at for record in again.records]
    assert ends == pytest.approx([call.ended_at for call in past.calls], abs=1e-6)


def test_a_scenario_says_how_late_refusals_are_heard(tmp_path: Path) -> None:
    limits = {"rpm": 80.0, "burst_s": 10.0, "silent": True}
    past = history({"model": "slots", "slots": 30, "limits": limits, **SPEED}, refusal_s=0.2)

    text = scenario_text(past, twin_of(past), log=tmp_path / "d.jsonl", folder=tmp_path)

    assert tomlkit.parse(text)["workload"]["refusal_s"] == pytest.approx(past.refusal_s(), abs=1e-4)


def test_the_held_back_time_begins_from_what_really_was() -> None:
    """Up to the split, the calls are as they were, whatever the model says of them."""
    past = history({"model": "slots", "slots": 6, **SPEED})
    since = split_at(past)

    slow = {"default": {"model": "slots", "slots": 6, "tokens_per_s": 50.0, "ttft_s": 0.2}}
    again = rerun(past, slow, since=since)

    early = [n for n, call in enumerate(past.calls) if call.ended_at < since]
    assert len(early) > 200
    for n in early:
        assert again.records[n].ended_at == past.calls[n].ended_at
    assert check(past, slow, since).distance > 1.0


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


def test_known_luck_replays_jittered_service_times() -> None:
    provider = {"model": "slots", "slots": 6, "jitter": 0.4, **SPEED}
    past = history(provider)
    twin = twin_of(past)

    again = rerun(past, twin.providers, workload=workload_of(past, twin.luck), seed=99)

    assert twin.providers["default"]["model"] == "slots"
    real = sum(call.record().in_time for call in past.calls)
    assert sum(record.in_time for record in again.records) == pytest.approx(real, abs=6)


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


def test_a_log_begins_anew_with_other_settings() -> None:
    lines = lines_of({"model": "slots", "slots": 5, **SPEED})
    settings = lines[0].header.settings
    assert settings is not None
    middle = len(lines) // 2
    at = lines[middle].now
    changed = type(lines[0])(lines[0].header, at, Reconfigured(settings))

    later = history_of([*lines[:middle], changed, *lines[middle:]])

    whole = history_of(lines)
    assert 100 < len(later.calls) < len(whole.calls)
    assert later.calls[0].request.id == 1
    assert later.calls[0].request.arrived_at < 5.0
    assert later.started_unix_s == pytest.approx(1000.0 + at)
    assert later.past(50.0) == []
    assert later.earlier_calls == len(whole.calls) - len(later.calls)
    with pytest.raises(TooLittle, match="since its settings last changed"):
        history_of([*lines, changed])


def test_a_log_without_requests_says_so() -> None:
    lines = [
        line for line in lines_of({"model": "slots", **SPEED}) if isinstance(line.what, Dispatch)
    ]

    with pytest.raises(TooLittle, match="no request stands in the log"):
        history_of(lines)


def test_a_call_that_has_not_ended_has_no_outcome() -> None:
    lines = lines_of({"model": "slots", "slots": 5, **SPEED})

    cut = history_of(lines[: len(lines) // 3])

    still = [call for call in cut.calls if call.outcome is None]
    assert still
    assert all(math.isnan(call.ended_at) for call in still)
    assert {call.outcome for call in cut.calls} <= {None, *RequestOutcome}


def test_a_caller_that_left_leaves_again_unless_it_is_served_before() -> None:
    lines = lines_of({"model": "slots", "slots": 5, **SPEED})
    slow = max(
        (n for n, line in enumerate(lines) if isinstance(line.what, Completed)),
        key=lambda n: lines[n].now - next(
            one.what.request.arrived_at for one in lines
            if isinstance(one.what, Arrived) and one.what.request.id == lines[n].request_id
        ),
    )  # fmt: skip
    number = lines[slow].request_id
    assert number is not None
    lines[slow] = replace(lines[slow], what=Cancelled(number))

    past = history_of(lines)

    call = past.calls[number - 1]
    assert (call.left_at, call.outcome) == (lines[slow].now, RequestOutcome.CANCELLED)
    assert workload_of(past).loads[number - 1].leaves_at == lines[slow].now
    faster = {"default": {"model": "slots", "slots": 50, "tokens_per_s": 900.0, "ttft_s": 0.2}}
    assert rerun(past, faster).records[number - 1].outcome is RequestOutcome.COMPLETED


def test_where_nothing_changes_the_interval_still_allows_for_what_was_not_seen() -> None:
    past = history({"model": "slots", "slots": 40, **SPEED}, rate_per_s=0.3)
    other = read_policy({"scheduler": {"queue_limit": 50_000}}, where="other")

    met = whatif(past, twin_of(past), other)[0].figures["met"]

    assert met.change == 0.0
    assert (met.low, met.high) == pytest.approx((-3.0 / 400, 3.0 / 400), rel=0.01)
    assert not met.sure


def test_a_place_is_free_when_it_really_was_however_fast_the_model_is() -> None:
    """A model that is a little fast is not let run ahead of a past that is known."""
    past = history({"model": "slots", "slots": 3, **SPEED}, rate_per_s=1.2, stack=DIRECT)
    since = split_at(past)
    flying = [a for a in past.attempts if a.sent_at < since < a.ended_at]
    fast = {"default": {"model": "slots", "slots": 3, "tokens_per_s": 165.0, "ttft_s": 0.18}}

    again = rerun(past, fast, since=since)

    assert len(flying) > 10
    real_s = sum(a.ended_at - since for a in flying)
    assert sum(again.records[a.call].ended_at - since for a in flying) > 0.7 * real_s


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
