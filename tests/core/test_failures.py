"""An attempt goes wrong: it is retried, passed on, or its request ends."""

import pytest

from penstock.core.events import (
    Arrived,
    Completed,
    Failed,
    FirstToken,
    LimitsSeen,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.outcomes import CROSSING_S
from penstock.core.settings import PolicySpec, UpstreamSettings
from penstock.core.upstream.breaker import PROBE_GAP_S
from penstock.errors import ProtocolError
from penstock.policies.registry import POLICIES
from tests.core.story import (
    arrive,
    complete,
    dispatch_times,
    is_at_rest,
    refuse_first,
    request,
    scheduler,
    sent,
    tell,
    upstream,
)


def test_a_refusal_pauses_the_upstream_and_leaves_one_turn_to_who_was_not_refused() -> None:
    penstock = scheduler(window=1)
    refuse_first(penstock)
    arrive(penstock, request(1), request(2), request(3))

    assert tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 1.5))) == []
    assert penstock.next_wakeup() == 2.5
    assert tell(penstock, (2.5, Woke())) == [("dispatch", 2, "default")]
    assert complete(penstock, 2, now=5.0) == [("dispatch", 1, "default")]


def test_a_refusal_that_outlasts_the_request_ends_it() -> None:
    penstock = scheduler()
    arrive(penstock, request(1, expires_at=3.0))

    (refusal,) = penstock.handle(Throttled(1, RefusalCause.RATE, 3.0), now=1.0)

    assert isinstance(refusal, Reject)
    assert (refusal.reason, refusal.retry_after_s) == ("upstream", 3.0)
    assert refusal.why.attempts == 1


def test_a_pause_that_outlasts_the_deadline_ends_the_request_at_once() -> None:
    penstock = scheduler(window=2)
    arrive(penstock, request(1, deadline=5.0), request(2, deadline=40.0))

    (refusal,) = penstock.handle(Throttled(1, RefusalCause.RATE, 30.0), now=1.0)
    assert isinstance(refusal, Reject)
    assert (refusal.reason, refusal.retry_after_s) == ("upstream", 30.0)

    assert tell(penstock, (1.0, Throttled(2, RefusalCause.RATE, 30.0))) == []
    assert tell(penstock, (31.0, Woke())) == [("dispatch", 2, "default")]


def test_what_waits_for_another_attempt_at_its_deadline_ends_with_the_last_answer() -> None:
    penstock = scheduler(window=2)
    arrive(penstock, request(1), request(2, deadline=5.0, expires_at=99.0))
    busy = RefusalCause.OVERLOAD
    tell(penstock, (1.0, Throttled(1, busy, 2.0)), (1.0, Throttled(2, busy, 2.0)))

    assert tell(penstock, (3.1, Woke())) == [("dispatch", 1, "default")]  # the probe, which hangs
    assert penstock.next_wakeup() == 5.0
    assert tell(penstock, (5.0, Woke())) == [("reject", 2, "upstream")]


def test_a_first_attempt_is_made_though_it_is_late_and_then_no_other() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2, deadline=5.0))

    assert complete(penstock, 1, now=6.0) == [("dispatch", 2, "default")]
    assert tell(penstock, (7.0, Throttled(2, RefusalCause.RATE, 1.0))) == [
        ("reject", 2, "upstream")
    ]
    assert is_at_rest(penstock)


def test_a_backoff_that_outlasts_the_deadline_is_not_begun() -> None:
    penstock = scheduler()
    arrive(penstock, request(1, deadline=1.2))

    assert tell(penstock, (1.0, Failed(1, retryable=True, jitter=0.5))) == [
        ("reject", 1, "upstream")
    ]


def test_a_long_pause_for_the_rate_is_waited_for_by_those_whose_deadline_allows_it() -> None:
    penstock = scheduler(window=4)
    refuse_first(penstock)
    arrive(penstock, request(1, deadline=300.0), request(2), request(3, deadline=100.0))
    told = tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 200.0)))

    assert told == []
    assert arrive(
        penstock, request(4, at=2.0), request(5, at=2.0, deadline=150.0, expires_at=500.0)
    ) == [("reject", 4, "rate"), ("reject", 5, "rate")]
    assert arrive(penstock, request(6, at=2.0, deadline=300.0)) == []
    tell(penstock, (3.0, Completed(2, 100)), (3.0, Completed(3, 100)))
    assert penstock.next_wakeup() == 201.0
    assert tell(penstock, (201.0, Woke())) == [("dispatch", 6, "default")]  # one probe
    assert complete(penstock, 6, now=202.0) == [("dispatch", 1, "default")]


def test_a_long_pause_ends_what_waits_without_the_patience_for_it() -> None:
    penstock = scheduler(window=1)
    refuse_first(penstock)
    arrive(penstock, request(1, deadline=300.0), request(2), request(3, deadline=300.0))

    assert tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 100.0))) == [("reject", 2, "rate")]
    assert tell(penstock, (101.0, Woke())) == [("dispatch", 3, "default")]


def test_a_quota_that_is_spent_during_a_long_pause_ends_them_all() -> None:
    penstock = scheduler(window=2)
    refuse_first(penstock)
    arrive(penstock, *(request(id_, deadline=300.0) for id_ in (1, 2, 3)))
    assert tell(penstock, (1.0, Throttled(1, RefusalCause.RATE, 100.0))) == []

    assert tell(penstock, (2.0, Throttled(2, RefusalCause.QUOTA, 86_400.0))) == [
        ("reject", 2, "upstream"),
        ("reject", 1, "quota"),
        ("reject", 3, "quota"),
    ]
    assert is_at_rest(penstock)


def test_after_a_spent_quota_one_probe_goes_first() -> None:
    penstock = scheduler(window=16)
    arrive(penstock, request(1))
    tell(penstock, (1.0, Throttled(1, RefusalCause.QUOTA, 30.0)))
    told = arrive(penstock, *(request(id_, at=31.0) for id_ in range(2, 20)))

    assert told == [("dispatch", 2, "default")]
    assert tell(penstock, (32.0, Throttled(2, RefusalCause.QUOTA, 30.0)))[0] == (
        "reject",
        2,
        "upstream",
    )
    told = arrive(penstock, *(request(id_, at=62.0) for id_ in range(20, 24)))
    assert told == [("dispatch", 20, "default")]
    assert len(complete(penstock, 20, now=63.0)) == 3


def test_a_spent_quota_refuses_all_at_once_that_could_only_wait_for_it() -> None:
    penstock = scheduler(window=2)
    arrive(penstock, *(request(id_) for id_ in (1, 2, 3, 4)))

    assert tell(penstock, (1.0, Throttled(1, RefusalCause.QUOTA, 86_400.0))) == [
        ("reject", 1, "upstream"),
        ("reject", 3, "quota"),
        ("reject", 4, "quota"),
    ]
    assert arrive(penstock, request(5, at=2.0)) == [("reject", 5, "quota")]
    assert tell(penstock, (3.0, Failed(2, retryable=True))) == [("reject", 2, "upstream")]
    assert is_at_rest(penstock)
    assert arrive(penstock, request(6, at=86_401.0)) == [("dispatch", 6, "default")]


def test_a_spent_quota_is_no_matter_while_another_upstream_has_some() -> None:
    penstock = scheduler(upstream("a"), upstream("b", base_s=9.0))
    arrive(penstock, request(1), request(2))

    assert tell(penstock, (1.0, Throttled(1, RefusalCause.QUOTA))) == []
    assert complete(penstock, 2, now=2.0) == [("dispatch", 1, "b")]


def test_a_spent_quota_reaches_every_lane_of_its_upstream_once_each_model_has_asked() -> None:
    """Days are counted by model: of an account that is spent as a whole each model asks once."""
    penstock = scheduler(upstream("a"), upstream("b", models=("m",)), window=1)
    arrive(penstock, request(1, model="x"), request(2, model="m"), request(3, model="m"))
    tell(penstock, (1.0, Throttled(1, RefusalCause.QUOTA)))

    assert arrive(penstock, request(4, model="x", at=1.5)) == [("reject", 4, "quota")]
    assert arrive(penstock, request(5, model="y", at=1.5)) == []
    assert complete(penstock, 3, now=2.0) == [("dispatch", 5, "a")]
    assert tell(penstock, (3.0, Throttled(5, RefusalCause.QUOTA))) == [("reject", 5, "upstream")]
    assert arrive(penstock, request(6, model="y", at=4.0)) == [("reject", 6, "quota")]


@pytest.mark.parametrize("first", ["spent", "well"])
@pytest.mark.parametrize("wait_s", [None, 20.0, 3600.0])
def test_a_models_spent_quota_shuts_out_no_other_model(wait_s: float | None, first: str) -> None:
    penstock = scheduler(window=4)
    other = "well" if first == "spent" else "spent"
    told = arrive(penstock, request(0, model=first), request(1, model=other))
    told += tell(penstock, (0.1, Throttled(int(first == "well"), RefusalCause.QUOTA, wait_s)))
    told += complete(penstock, int(first == "spent"), now=0.2)
    for id_ in range(2, 40):
        told += arrive(penstock, request(id_, model=("spent", "well")[id_ % 2], at=float(id_)))
        if id_ % 2:
            told += complete(penstock, id_, now=id_ + 0.5)
        elif told[-1] == ("dispatch", id_, "default"):
            told += tell(penstock, (id_ + 0.5, Throttled(id_, RefusalCause.QUOTA, wait_s)))

    gone, others = [word[1] for word in told if word[0] == "dispatch"], range(1, 40, 2)
    assert [id_ for id_ in gone if id_ in others] == [*others]
    spent = [id_ for id_ in gone if id_ not in others]
    assert len(spent) <= 1 + 40 / (wait_s or 60.0)


def test_a_broken_attempt_is_made_again_after_a_jittered_back_off() -> None:
    penstock = scheduler()
    arrive(penstock, request(1))

    assert tell(penstock, (1.0, Failed(1, retryable=True, jitter=0.5))) == []
    assert penstock.next_wakeup() == 1.25  # half of half a second
    assert tell(penstock, (1.25, Woke())) == [("dispatch", 1, "default")]
    assert tell(penstock, (2.0, Failed(1, retryable=True, jitter=0.5))) == []
    assert penstock.next_wakeup() == 2.5  # half of a second: it doubles


def test_others_go_while_one_backs_off() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2))

    assert tell(penstock, (1.0, Failed(1, retryable=True))) == [("dispatch", 2, "default")]
    assert tell(penstock, (1.5, Woke())) == []
    assert complete(penstock, 2, now=2.0) == [("dispatch", 1, "default")]


@pytest.mark.parametrize(("after_s", "goes_again"), [(CROSSING_S, True), (CROSSING_S + 0.1, False)])
def test_what_crossed_the_end_of_a_reused_connection_goes_again_at_once_and_costs_nothing(
    after_s: float, goes_again: bool
) -> None:
    penstock = scheduler(retry_share=0.0)
    for id_ in range(1, 10):
        at = 10.0 * id_
        arrive(penstock, request(id_, at=at))
        failed = Failed(id_, retryable=True, reused=True)
        told = tell(penstock, (at + after_s, failed))
        assert (told == [("dispatch", id_, "default")]) is goes_again
        if not goes_again:
            break
        complete(penstock, id_, now=at + 5.0)


def test_a_request_crosses_an_end_once_and_is_a_broken_attempt_then() -> None:
    penstock = scheduler()
    arrive(penstock, request(1))
    crossed = Failed(1, retryable=True, jitter=0.5, reused=True)

    assert tell(penstock, (0.1, crossed)) == [("dispatch", 1, "default")]
    assert tell(penstock, (0.2, crossed)) == []
    assert penstock.next_wakeup() == 0.7


def test_after_the_last_attempt_the_answer_stands() -> None:
    penstock = scheduler(max_attempts=2)
    arrive(penstock, request(1))
    tell(penstock, (1.0, Failed(1, retryable=True)), (2.0, Woke()))

    assert tell(penstock, (3.0, Failed(1, retryable=True))) == [("reject", 1, "upstream")]
    assert is_at_rest(penstock)


def test_silence_is_an_attempt_like_any_other() -> None:
    """What was silent may have worked, and be paid for: patience is no reason to go on."""
    penstock = scheduler(max_attempts=2)
    told = arrive(penstock, request(1, deadline=1e6))
    for now in (1.0, 40.0):
        told += tell(
            penstock, (now, Throttled(1, RefusalCause.SLOW_FIRST_TOKEN)), (now + 9, Woke())
        )

    assert told == [("dispatch", 1, "default")] * 2 + [("reject", 1, "upstream")]
    assert is_at_rest(penstock)


def test_what_is_late_already_is_not_tried_again() -> None:
    penstock = scheduler()
    arrive(penstock, request(1, deadline=2.0))

    assert tell(penstock, (2.0, Failed(1, retryable=True))) == [("reject", 1, "upstream")]


def test_a_fault_of_the_caller_just_frees_the_place() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1), request(2))

    assert tell(penstock, (1.0, Failed(1, retryable=False, upstream_fault=False))) == [
        ("dispatch", 2, "default")
    ]
    assert complete(penstock, 2, now=2.0) == []
    assert is_at_rest(penstock)


def test_three_faults_in_a_row_close_the_upstream_for_a_while() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, *(request(id_) for id_ in (1, 2, 3, 4)))

    assert tell(penstock, (1.0, Failed(1, jitter=0.5)), (2.0, Failed(2, jitter=0.5))) == [
        ("dispatch", 2, "default"),
        ("dispatch", 3, "default"),
    ]
    assert tell(penstock, (3.0, Failed(3, jitter=0.5))) == []
    assert penstock.next_wakeup() == 3.5
    assert tell(penstock, (3.5, Woke())) == [("dispatch", 4, "default")]


def test_after_a_pause_for_overload_one_probe_goes_first() -> None:
    penstock = scheduler(window=3)
    refuse_first(penstock)
    arrive(penstock, request(1), request(2))
    tell(penstock, (1.0, Throttled(1, RefusalCause.OVERLOAD, 2.0)), (1.5, Completed(2, 100)))
    arrive(penstock, request(3, at=2.0), request(4, at=2.0))

    assert tell(penstock, (3.0, Woke())) == [("dispatch", 3, "default")]
    assert penstock.next_wakeup() == 3.0 + PROBE_GAP_S  # another one, should this one hang
    assert tell(penstock, (3.5, FirstToken(3))) == [
        ("dispatch", 1, "default"),
        ("dispatch", 4, "default"),
    ]


def test_two_refusals_between_which_another_has_passed_the_door_are_not_in_a_row() -> None:
    """Replies take seconds and refusals do not: who waits for a reply takes chance for a storm."""
    penstock = scheduler(window=8)
    arrive(penstock, *(request(id_) for id_ in (1, 2, 3)))
    tell(penstock, (0.5, Completed(1, 100)), (0.5, Completed(2, 100)), (0.5, Completed(3, 100)))
    for id_ in (4, 6, 8):
        at = float(id_)
        arrive(penstock, request(id_, at=at))
        tell(penstock, (at + 0.02, Throttled(id_, RefusalCause.OVERLOAD)))
        arrive(penstock, request(id_ + 1, at=at + 1.0))

    assert not penstock.snapshot().upstreams["default"].open


def test_a_probe_that_has_passed_the_door_closes_the_circuit_when_the_next_one_is_due() -> None:
    penstock = scheduler(window=8)
    refuse_first(penstock)
    arrive(penstock, request(1))
    tell(penstock, (0.02, Throttled(1, RefusalCause.OVERLOAD, 2.0)))
    arrive(penstock, *(request(id_, at=1.0) for id_ in (2, 3, 4)))

    assert tell(penstock, (2.02, Woke())) == [("dispatch", 2, "default")]
    assert len(tell(penstock, (2.02 + PROBE_GAP_S, Woke()))) == 3


def test_a_first_token_counts_once() -> None:
    penstock = scheduler()
    arrive(penstock, request(1))

    assert tell(penstock, (0.5, FirstToken(1)), (0.6, FirstToken(1))) == []
    assert complete(penstock, 1, now=1.0) == []


def test_retries_beyond_the_budget_are_not_made() -> None:
    penstock = scheduler(window=10, retry_share=0.0)  # three a minute are always allowed
    arrive(penstock, *(request(id_) for id_ in range(1, 6)))

    told = tell(
        penstock,
        *((1.0, Failed(id_, retryable=True, upstream_fault=False)) for id_ in range(1, 6)),
    )

    assert told == [("reject", 4, "upstream"), ("reject", 5, "upstream")]


def test_a_throttled_request_waits_for_the_retry_budget_and_lets_others_go() -> None:
    penstock = scheduler(window=1, retry_share=0.0)
    refuse_first(penstock)
    arrive(penstock, request(1))
    now = 0.0
    for _ in range(3):
        now += 1.0
        tell(penstock, (now, Throttled(1, RefusalCause.RATE, 1.0, jitter=0.0)))
        now += 1.0
        assert tell(penstock, (now, Woke())) == [("dispatch", 1, "default")]
    tell(penstock, (6.5, Throttled(1, RefusalCause.RATE, 1.0, jitter=0.0)))

    assert tell(penstock, (7.5, Woke())) == []  # the pause is over, the budget is spent
    assert arrive(penstock, request(2, "interactive", at=7.6)) == [("dispatch", 2, "default")]
    tell(penstock, (8.0, Throttled(2, RefusalCause.RATE, 1.0, jitter=0.0)), (9.0, Woke()))

    assert penstock.next_wakeup() == 7.6 + PROBE_GAP_S  # the budget's floor
    assert tell(penstock, (9.6, Woke())) == [("dispatch", 1, "default")]


def test_a_success_elsewhere_lifts_the_retry_budget() -> None:
    penstock = scheduler(window=1, retry_share=0.0)
    refuse_first(penstock)
    arrive(penstock, request(1))
    for now in (1.0, 3.0, 5.0, 6.5):
        tell(penstock, (now, Throttled(1, RefusalCause.RATE, 1.0, jitter=0.0)), (now + 1.0, Woke()))
    arrive(penstock, request(2, "interactive", at=7.6))

    assert tell(penstock, (8.0, Completed(2, 100))) == [("dispatch", 1, "default")]


def test_a_permanent_refusal_ends_even_a_request_with_endless_patience() -> None:
    penstock = scheduler(max_attempts=3)
    told = arrive(penstock, request(1))
    for now in (0.0, 30.0, 60.0):
        told += tell(penstock, (now, Throttled(1, RefusalCause.RATE, 1.0)), (now + 5.0, Woke()))

    assert told == [("dispatch", 1, "default")] * 3 + [("reject", 1, "upstream")]
    assert is_at_rest(penstock)


@pytest.mark.parametrize(
    "event", [FirstToken(1), Completed(1, 5), Throttled(1, RefusalCause.RATE), Failed(1)]
)
def test_only_what_flies_can_be_answered(
    event: FirstToken | Completed | Throttled | Failed,
) -> None:
    penstock = scheduler(window=1)
    with pytest.raises(ProtocolError, match="request 1, which is unknown"):
        penstock.handle(event, now=0.0)
    arrive(penstock, request(0), request(1))

    with pytest.raises(ProtocolError, match="request 1, which is queued: only what flies can be"):
        penstock.handle(event, now=0.0)


def test_limits_that_an_upstream_states_are_kept_from_then_on() -> None:
    penstock = scheduler(window=10)
    tell(penstock, (0.0, LimitsSeen("default", limit_requests=2.0)))
    sent_at = dispatch_times(penstock, *(request(id_) for id_ in (1, 2, 3, 4, 5)))

    assert len(sent_at) == 5
    assert all(later - first >= 60.0 for first, later in zip(sent_at, sent_at[2:], strict=False))


def test_an_instant_reply_teaches_no_policy_to_divide_by_nothing() -> None:
    for kind in sorted(POLICIES["capacity"]):
        penstock = scheduler(
            UpstreamSettings(capacity=PolicySpec(kind)),
        )
        for id_ in range(30):
            arrive(penstock, request(id_, at=float(id_)))
            complete(penstock, id_, now=float(id_))

        assert penstock.snapshot().in_flight == 0


def test_limits_of_an_unknown_upstream_are_a_mistake() -> None:
    with pytest.raises(ProtocolError, match=r"upstream 'x' is not configured: known are \['def"):
        scheduler().handle(LimitsSeen("x"), now=0.0)


def test_a_reply_of_unknown_length_settles_nothing() -> None:
    penstock = scheduler(window=1)
    arrive(penstock, request(1))

    assert complete(penstock, 1, now=2.0, tokens=None) == []
    assert is_at_rest(penstock)


def test_a_retry_is_not_held_up_by_newcomers_that_pass_the_door() -> None:
    """Calls take 100 s, so nothing is answered, and the retry budget is spent by the fourth."""
    penstock = scheduler(window=64, retry_share=0.0)
    arrive(penstock, request(1), request(2))
    complete(penstock, 1, now=0.5)
    complete(penstock, 2, now=0.5)
    refused, again = dict[int, float](), dict[int, float]()
    for step in range(1, 330):
        now = 0.5 + 0.1 * step
        new = [] if step % 15 else penstock.handle(Arrived(request(step, at=now)), now=now)
        for id_ in sent([*new, *penstock.handle(Woke(), now=now)]):
            if id_ in refused:
                again.setdefault(id_, now - refused[id_])
            elif id_ % 30 == 0 and len(refused) < 9:
                refused[id_] = now + 0.02
                tell(penstock, (now + 0.02, Throttled(id_, RefusalCause.OVERLOAD)))

    assert len(again) == len(refused) == 9
    assert max(again.values()) <= 2 * 1.5
