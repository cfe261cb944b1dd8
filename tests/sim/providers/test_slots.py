"""`slots` and `serial`: places, a hidden queue, and a rate that depends on how many are served."""

import pytest

from penstock.sim.providers.base import Job, Provider
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import drain, ends, firsts, run


def slots(**params: object) -> Provider:
    table = {"model": "slots", "slots": 2, "tokens_per_s": 100.0, "ttft_s": 0.5, **params}
    return build_provider(table, seed=0)


def test_a_lone_request_takes_its_first_token_and_then_its_tokens() -> None:
    seen = run(slots(), [(1.0, 7, 100)])

    assert seen == [(1.5, 7, "first_token"), (2.5, 7, "finished")]


def test_the_third_of_three_waits_inside_for_the_first_place_that_falls_free() -> None:
    seen = run(slots(), [(0.0, 1, 300), (0.0, 2, 100), (0.1, 3, 50)])

    assert ends(seen) == {1: 3.5, 2: 1.5, 3: 2.5}
    assert firsts(seen)[3] == 2.0


def test_with_beta_each_slows_down_while_others_are_served() -> None:
    # Alone: 100/(1+1) = 50 tokens/s. Together: 100/(1+2) = 33.3 tokens/s each.
    provider = slots(beta=1.0, ttft_s=0.0)

    seen = run(provider, [(0.0, 1, 100), (1.0, 2, 100)])

    # 1 has 50 tokens left at 1.0, so it ends at 2.5; 2 then has 50 of its 100 left: 1 s alone.
    assert ends(seen) == {1: 2.5, 2: 3.5}


def test_cancelling_a_served_request_lets_the_queue_move_up() -> None:
    provider = slots(slots=1)
    for job_id in (1, 2):
        provider.submit(Job(job_id, 100), now=0.0)

    provider.cancel(1, now=0.25)

    assert ends(drain(provider, until=10.0)) == {2: 1.75}


def test_cancelling_a_queued_request_leaves_no_trace() -> None:
    provider = slots(slots=1)
    for job_id in (1, 2, 3):
        provider.submit(Job(job_id, 100), now=0.0)

    provider.cancel(2, now=0.1)
    provider.cancel(99, now=0.1)

    assert ends(drain(provider, until=10.0)) == {1: 1.5, 3: 3.0}
    assert (provider.load().active, provider.load().queued) == (0, 0)


def test_tokens_appear_one_by_one_between_the_first_and_the_last() -> None:
    provider = slots()
    provider.submit(Job(1, 10), now=0.0)

    assert provider.tokens_done(1, now=0.4) == 0
    provider.advance(now=0.5)
    assert provider.tokens_done(1, now=0.5) == 1
    assert provider.tokens_done(1, now=0.55) == 5
    assert provider.tokens_done(1, now=0.599) == 9
    assert provider.tokens_done(99, now=0.599) == 0


def test_slots_that_double_at_a_given_time_take_the_queue_in_at_once() -> None:
    provider = slots(slots=1, changes=[{"at_s": 1.0, "slots": 2}])

    seen = run(provider, [(0.0, 1, 1000), (0.0, 2, 100)])

    assert ends(seen) == {1: 10.5, 2: 2.5}


def test_slots_that_halve_let_what_is_served_finish() -> None:
    provider = slots(slots=2, changes=[{"at_s": 1.0, "slots": 1}])

    seen = run(provider, [(0.0, 1, 200), (0.0, 2, 300), (0.0, 3, 100)])

    assert ends(seen) == {1: 2.5, 2: 3.5, 3: 5.0}


def test_a_rate_that_changes_in_mid_reply_holds_for_the_rest_of_it() -> None:
    provider = slots(ttft_s=0.0, changes=[{"at_s": 1.0, "tokens_per_s": 50.0}])

    assert ends(run(provider, [(0.0, 1, 200)])) == {1: 3.0}


def test_a_reply_without_tokens_ends_with_its_first_token_time() -> None:
    assert ends(run(slots(), [(0.0, 1, 0)])) == {1: 0.5}


@pytest.mark.parametrize("model", ["serial", "slots"])
def test_serial_is_slots_with_one_slot(model: str) -> None:
    table = {"model": model, "tokens_per_s": 10.0, "ttft_s": 1.0}
    if model == "slots":
        table["slots"] = 1

    seen = run(build_provider(table, seed=0), [(0.0, 1, 10), (0.0, 2, 20), (0.5, 3, 5)])

    assert ends(seen) == {1: 2.0, 2: 5.0, 3: 6.5}
