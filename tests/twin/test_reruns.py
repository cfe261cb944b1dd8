"""A log lived again: from a known past, on a model, with the luck that each call had."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import tomlkit

from penstock.core.events import (
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Event,
    LimitsSeen,
    Reconfigured,
)
from penstock.metrics import RequestOutcome
from penstock.twin.check import check, split_at
from penstock.twin.history import TooLittle, history_of
from penstock.twin.model import twin_of
from penstock.twin.rerun import rerun, workload_of
from penstock.twin.scenario_file import scenario_text
from tests.twin.histories import DIRECT, SPEED, history, lines_of


def test_limits_are_stated_for_the_model_of_the_request_as_a_sidecar_hears_them() -> None:
    """Else what was used of a model's limits before the split counts for nothing after it."""
    provider = {"model": "slots", "limits": {"rpm": 100, "dialect": "openai"}, **SPEED}
    past = history(provider, requests=40)
    for call in past.calls:
        call.request = replace(call.request, model="m", account="theirs")
    stated: list[tuple[str, str]] = []

    def watch(_now: float, event: Event, _actions: object) -> None:
        if isinstance(event, LimitsSeen):
            stated.append((event.model, event.account))

    rerun(past, {"default": provider}, watch=watch)

    assert stated == [("m", "theirs")] * 40


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


def test_known_luck_replays_jittered_service_times() -> None:
    provider = {"model": "slots", "slots": 6, "jitter": 0.4, **SPEED}
    past = history(provider)
    twin = twin_of(past)

    again = rerun(past, twin.providers, workload=workload_of(past, twin.luck), seed=99)

    assert twin.providers["default"]["model"] == "slots"
    real = sum(call.record().in_time for call in past.calls)
    assert sum(record.in_time for record in again.records) == pytest.approx(real, abs=6)


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
