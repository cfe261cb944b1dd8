"""The engine: whose turn it is at one instant, and what a client notices of a provider."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from penstock.core.events import (
    Action,
    Arrived,
    Cancelled,
    Completed,
    Defer,
    Dispatch,
    Event,
    Failed,
    LimitsSeen,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.errors import ProtocolError
from penstock.metrics import RequestOutcome
from penstock.sim.engine import Engine, Habits
from penstock.sim.providers.registry import build_provider
from penstock.sim.workload import Workload
from tests.sim.scripted import UPSTREAM, Answering, Direct, load, why, workload

SLOT = {"model": "slots", "slots": 1, "tokens_per_s": 10.0, "ttft_s": 1.0}


def engine(
    scheduler: Direct | Answering,
    provider: Mapping[str, object] = SLOT,
    *,
    habits: Habits | None = None,
) -> Engine:
    return Engine(scheduler, {UPSTREAM: build_provider(provider, seed=0)}, habits=habits)


def test_a_request_is_timed_from_its_submission_to_its_last_token() -> None:
    run = engine(Direct()).run(workload((1.0, 10), (1.5, 10)))

    assert [(r.ended_at, r.latency_s) for r in run.records] == [(3.0, 2.0), (5.0, 3.5)]
    assert [r.outcome for r in run.records] == [RequestOutcome.COMPLETED] * 2
    assert run.attempts == 2


def test_at_one_instant_completions_come_before_arrivals_and_those_before_timers() -> None:
    seen: list[tuple[float, str]] = []

    def answer(event: Event, now: float) -> list[Action]:
        seen.append((now, type(event).__name__))
        return [Dispatch(event.request, UPSTREAM, why())] if isinstance(event, Arrived) else []

    engine(Answering(answer, wakes=[2.0])).run(workload((0.0, 10), (2.0, 10)))

    assert seen == [
        (0.0, "Arrived"),
        (2.0, "Completed"),
        (2.0, "Arrived"),
        (2.0, "Woke"),
        (4.0, "Completed"),
    ]


def test_completions_of_one_instant_come_in_order_of_their_numbers() -> None:
    wide = {**SLOT, "slots": 8}
    scheduler = Direct()

    engine(scheduler, wide).run(workload((0.0, 10), (0.0, 10), (0.0, 10)))

    ended = [e.request_id for _, e in scheduler.told if isinstance(e, Completed)]
    assert ended == [1, 2, 3]


def test_a_reply_tells_its_real_length_only_when_it_is_complete() -> None:
    scheduler = Direct()

    engine(scheduler).run(workload((0.0, 17)))

    assert [e.output_tokens for _, e in scheduler.told if isinstance(e, Completed)] == [17]


def test_first_tokens_are_heard_of_only_by_clients_that_stream() -> None:
    blind, seeing = Direct(), Direct()

    engine(blind).run(workload((0.0, 10)))
    engine(seeing, habits=Habits(stream=True)).run(workload((0.0, 10)))

    assert blind.kinds() == [(0.0, "Arrived"), (2.0, "Completed")]
    assert seeing.kinds() == [(0.0, "Arrived"), (1.0, "FirstToken"), (2.0, "Completed")]


def test_where_a_share_of_the_calls_is_streamed_the_others_tell_no_first_token() -> None:
    mixed = Direct()

    engine(mixed, habits=Habits(stream=0.25)).run(workload(*[(10.0 * n, 10) for n in range(400)]))

    streamed = sum(kind == "FirstToken" for _, kind in mixed.kinds())
    assert 70 < streamed < 130


def test_a_reply_states_its_prompt_and_what_of_it_was_cached_if_there_is_a_cache() -> None:
    stated = []
    for provider in (SLOT, {**SLOT, "cached_share": 1.0}):
        scheduler = Direct()
        one = Workload((load(1, 0.0, 10, prompt=1000),), ())
        engine(scheduler, provider).run(one)
        (done,) = [e for _, e in scheduler.told if isinstance(e, Completed)]
        stated.append((done.prompt_tokens, done.cached_tokens))

    assert stated == [(1000, None), (1000, 950)]


def test_a_silent_provider_refuses_without_a_wish_and_states_no_limits() -> None:
    limits = {"tpm": 600, "burst_s": 1.0, "silent": True}
    scheduler = Direct()

    engine(scheduler, {**SLOT, "limits": limits}).run(workload((0.0, 10), (0.0, 10)))

    (told,) = [e for _, e in scheduler.told if isinstance(e, Throttled)]
    assert (told.cause, told.retry_after_s) == (RefusalCause.RATE, None)
    assert not any(isinstance(e, LimitsSeen) for _, e in scheduler.told)


def test_a_refusal_is_told_at_once_with_its_cause_and_its_wish() -> None:
    limited = {"model": "rate_limited", "rpm": 60, "burst_s": 1.0, "dialect": "plain"}
    scheduler = Direct()

    run = engine(scheduler, {**limited, "inner": SLOT}).run(workload((0.0, 10), (0.0, 10)))

    (told,) = [e for _, e in scheduler.told if isinstance(e, Throttled)]
    assert (told.request_id, told.cause) == (2, RefusalCause.RATE)
    assert told.retry_after_s == pytest.approx(1.0)
    assert 0 <= told.jitter < 1
    assert [r.outcome for r in run.records] == [RequestOutcome.COMPLETED, RequestOutcome.FAILED]
    assert run.attempts == 2


@pytest.mark.parametrize(
    ("status", "cause"), [(503, RefusalCause.OVERLOAD), (529, RefusalCause.OVERLOAD)]
)
def test_overload_is_no_rate_limit(status: int, cause: RefusalCause) -> None:
    windows = [{"kind": "status", "status": status}]
    scheduler = Direct()

    engine(scheduler, {"model": "faulty", "inner": SLOT, "windows": windows}).run(
        workload((0.0, 10))
    )

    assert [e.cause for _, e in scheduler.told if isinstance(e, Throttled)] == [cause]


def test_a_spent_quota_is_told_as_such() -> None:
    limited = {"model": "rate_limited", "quota_tokens": 5, "dialect": "plain", "inner": SLOT}
    scheduler = Direct()

    engine(scheduler, limited).run(workload((0.0, 10), (0.0, 10)))

    causes = [e.cause for _, e in scheduler.told if isinstance(e, Throttled)]
    assert causes == [RefusalCause.QUOTA]


@pytest.mark.parametrize(("status", "retryable"), [(500, True), (502, True), (400, False)])
def test_an_error_speaks_against_the_provider_unless_it_is_the_callers(
    status: int, retryable: bool
) -> None:
    windows = [{"kind": "status", "status": status}]
    scheduler = Direct()

    run = engine(scheduler, {"model": "faulty", "inner": SLOT, "windows": windows}).run(
        workload((0.0, 10))
    )

    (told,) = [e for _, e in scheduler.told if isinstance(e, Failed)]
    assert (told.retryable, told.upstream_fault) == (retryable, retryable)
    assert run.records[0].outcome is RequestOutcome.FAILED


def test_a_retry_that_succeeds_counts_as_completed() -> None:
    windows = [{"kind": "status", "status": 500, "until_s": 0.5}]
    faulty = {"model": "faulty", "inner": SLOT, "windows": windows}
    pending: list[Dispatch] = []

    def answer(event: Event, now: float) -> list[Action]:
        if isinstance(event, Arrived):
            pending.append(Dispatch(event.request, UPSTREAM, why()))
            return [pending[0]]
        return [pending[0]] if isinstance(event, Woke) else []

    run = engine(Answering(answer, wakes=[1.0]), faulty).run(workload((0.0, 10)))

    assert (run.records[0].outcome, run.records[0].ended_at) == (RequestOutcome.COMPLETED, 3.0)
    assert run.attempts == 2


def test_what_broke_after_its_first_token_cannot_be_tried_again() -> None:
    windows = [{"kind": "reset", "after_tokens": 5}]
    faulty = {"model": "faulty", "inner": SLOT, "windows": windows}
    blind, seeing = Direct(), Direct()

    engine(blind, faulty).run(workload((0.0, 10)))
    engine(seeing, faulty, habits=Habits(stream=True)).run(workload((0.0, 10)))

    assert [e.retryable for _, e in blind.told if isinstance(e, Failed)] == [True]
    assert [e.retryable for _, e in seeing.told if isinstance(e, Failed)] == [False]


def test_a_stalled_reply_is_given_up_after_the_clients_patience() -> None:
    windows = [{"kind": "stall", "after_tokens": 5}]
    faulty = {"model": "faulty", "inner": SLOT, "windows": windows}
    scheduler = Direct()

    run = engine(scheduler, faulty, habits=Habits(patience_s=30.0)).run(workload((0.0, 10)))

    assert scheduler.kinds()[-1] == (31.5, "Failed")
    assert (run.records[0].outcome, run.records[0].ended_at) == (RequestOutcome.FAILED, 31.5)


def test_a_client_in_a_hurry_breaks_off_when_no_first_token_comes() -> None:
    scheduler = Direct()
    hurried = Habits(stream=True, first_token_s=3.0)

    run = engine(scheduler, habits=hurried).run(workload((0.0, 30), (0.0, 30)))

    assert scheduler.kinds() == [
        (0.0, "Arrived"),
        (0.0, "Arrived"),
        (1.0, "FirstToken"),
        (3.0, "Throttled"),
        (4.0, "Completed"),
    ]
    told = scheduler.told[3][1]
    assert isinstance(told, Throttled)
    assert (told.request_id, told.cause) == (2, RefusalCause.SLOW_FIRST_TOKEN)
    assert [r.outcome for r in run.records] == [RequestOutcome.COMPLETED, RequestOutcome.FAILED]


def test_a_retry_gets_a_new_wait_for_its_first_token() -> None:
    scheduler = Direct(again=True)
    hurried = Habits(stream=True, first_token_s=3.0)

    run = engine(scheduler, habits=hurried).run(workload((0.0, 30), (0.0, 30)))

    assert [r.ended_at for r in run.records] == [4.0, 8.0]
    assert run.attempts == 3


def test_stated_limits_are_passed_on_before_the_completion_that_carried_them() -> None:
    limited = {"model": "rate_limited", "rpm": 60, "tpm": 6000, "inner": SLOT}
    scheduler = Direct()

    engine(scheduler, limited).run(workload((0.0, 10)))

    assert scheduler.kinds() == [(0.0, "Arrived"), (2.0, "LimitsSeen"), (2.0, "Completed")]
    seen = scheduler.told[1][1]
    assert isinstance(seen, LimitsSeen)
    assert (seen.limit_requests, seen.limit_tokens) == (60, 6000)
    assert seen.remaining_requests == 60


def test_a_refused_request_keeps_the_grounds_that_it_was_refused_on() -> None:
    def answer(event: Event, now: float) -> list[Action]:
        if not isinstance(event, Arrived):
            return []
        grounds = why()
        grounds.severity, grounds.rung = 0.8, "xlong"
        return [
            Defer(event.request, now + 1, "overload", grounds),
            Reject(event.request, "shed", 5.0, grounds),
        ]

    run = engine(Answering(answer)).run(workload((3.0, 200)))

    (refused,) = run.refusals
    assert (refused.request_id, refused.at, refused.bucket) == (1, 3.0, "medium")
    assert (refused.reason, refused.rung, refused.severity) == ("shed", "xlong", 0.8)
    assert refused.cost_tokens == 200
    assert (run.records[0].outcome, run.records[0].deferrals) == (RequestOutcome.SHED, 1)


def test_a_scheduler_that_holds_a_request_for_ever_is_found_out() -> None:
    with pytest.raises(ProtocolError, match="request 1 never ended"):
        engine(Answering(lambda _event, _now: [])).run(workload((0.0, 10)))


def test_a_scheduler_that_wakes_for_nothing_for_ever_is_found_out() -> None:
    class Restless(Answering):
        def next_wakeup(self) -> float | None:
            return 1.0

    with pytest.raises(ProtocolError, match="woken"):
        engine(Restless(lambda _event, _now: [])).run(workload((0.0, 10)))


def test_a_watcher_sees_every_event_with_its_answers() -> None:
    seen: list[tuple[float, str, int]] = []
    provider = {UPSTREAM: build_provider(SLOT, seed=0)}

    Engine(
        Direct(), provider, watch=lambda now, e, a: seen.append((now, type(e).__name__, len(a)))
    ).run(workload((0.0, 10)))

    assert seen == [(0.0, "Arrived", 1), (2.0, "Completed", 0)]


def test_a_caller_that_leaves_frees_its_place_and_is_told_of() -> None:
    scheduler = Direct()
    loads = workload((0.0, 90), (1.0, 10)).loads
    left = replace(loads[0], leaves_at=4.0), replace(loads[1], leaves_at=60.0)

    run = engine(scheduler).run(Workload(left, ()))

    assert [(r.ended_at, r.outcome) for r in run.records] == [
        (4.0, RequestOutcome.CANCELLED),
        (6.0, RequestOutcome.COMPLETED),
    ]
    assert [(at, e.request_id) for at, e in scheduler.told if isinstance(e, Cancelled)] == [
        (4.0, 1)
    ]


def test_what_really_happened_comes_first_and_what_flew_then_flies_on() -> None:
    scheduler = Direct()
    work = workload((0.0, 10), (1.0, 10), (5.0, 10))
    past: list[tuple[float, Event]] = [
        (0.0, Arrived(work.loads[0].request)),
        (1.0, Arrived(work.loads[1].request)),
        (1.5, Completed(1, 10)),  # sooner than the model says
    ]

    run = engine(scheduler).run(work, past=past)

    assert [r.ended_at for r in run.records] == [1.5, 3.5, 7.0]


def test_a_job_carries_its_own_luck() -> None:
    loads = workload((0.0, 10), (5.0, 10)).loads

    run = engine(Direct()).run(Workload((replace(loads[0], luck=(3.0, 3.0)), loads[1]), ()))

    assert [r.ended_at for r in run.records] == [6.0, 8.0]
