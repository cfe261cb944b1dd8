"""`faulty`: windows in which something goes wrong with some of the jobs."""

import pytest

from penstock.sim.providers.base import Job, Provider
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import drain, run

INNER = {"model": "slots", "slots": 1, "tokens_per_s": 10.0, "ttft_s": 1.0}


def faulty(*windows: dict[str, object]) -> Provider:
    table = {"model": "faulty", "inner": INNER, "windows": list(windows)}
    return build_provider(table, seed=5)


def test_a_status_window_refuses_while_it_lasts_and_not_after() -> None:
    provider = faulty({"kind": "status", "status": 529, "from_s": 10, "until_s": 20})

    statuses = []
    for at in (9.9, 10.0, 19.9, 20.0):
        refusal = provider.submit(Job(int(at * 10), 0), now=at)
        statuses.append(None if refusal is None else (refusal.status, refusal.kind))

    assert statuses == [None, (529, "overload"), (529, "overload"), None]


@pytest.mark.parametrize(
    ("status", "kind"), [(429, "rate"), (500, "error"), (503, "overload"), (529, "overload")]
)
def test_each_status_is_of_its_kind(status: int, kind: str) -> None:
    provider = faulty({"kind": "status", "status": status, "retry_after_s": 7})

    refusal = provider.submit(Job(1, 5), now=0.0)

    assert refusal is not None
    assert (refusal.status, refusal.kind, refusal.retry_after_s) == (status, kind, 7)
    assert refusal.headers == {"retry-after": "7"}


def test_a_slow_first_token_comes_so_much_later_and_the_reply_is_whole() -> None:
    provider = faulty({"kind": "slow_first_token", "delay_s": 5})

    assert run(provider, [(0.0, 1, 10)]) == [(6.0, 1, "first_token"), (7.0, 1, "finished")]


def test_a_held_job_that_is_cancelled_never_reaches_the_provider() -> None:
    provider = faulty({"kind": "slow_first_token", "delay_s": 5})
    provider.submit(Job(1, 10), now=0.0)
    assert provider.load().active == 1

    provider.cancel(1, now=1.0)

    assert drain(provider, until=100.0) == []
    assert provider.load().active == 0


def test_a_reset_breaks_the_reply_after_some_tokens() -> None:
    provider = faulty({"kind": "reset", "after_tokens": 5})

    assert run(provider, [(0.0, 1, 10)]) == [(1.0, 1, "first_token"), (1.5, 1, "broken")]


def test_a_stall_keeps_what_was_sent_until_the_client_gives_up() -> None:
    provider = faulty({"kind": "stall", "after_tokens": 5})

    assert run(provider, [(0.0, 1, 10)]) == [(1.0, 1, "first_token"), (1.5, 1, "stalled")]
    assert (provider.tokens_done(1, now=50.0), provider.load().active) == (5, 1)

    provider.cancel(1, now=60.0)
    assert (provider.tokens_done(1, now=60.0), provider.load().active) == (0, 0)


def test_only_the_given_share_of_jobs_is_hit_and_always_the_same_ones() -> None:
    def hit() -> list[int]:
        provider = faulty({"kind": "status", "share": 0.25})
        return [n for n in range(1000) if provider.submit(Job(n, 0), now=0.0) is not None]

    assert hit() == hit()
    assert 200 < len(hit()) < 300


def test_a_job_that_is_sent_again_is_drawn_again() -> None:
    provider = faulty({"kind": "status", "share": 0.5})

    def refused(jobs: list[int], at: float) -> list[int]:
        return [n for n in jobs if provider.submit(Job(n, 0), now=at) is not None]

    once = refused(list(range(1000)), 1.0)
    twice = refused(once, 2.0)
    thrice = refused(twice, 3.0)

    assert 450 < len(once) < 550
    assert 200 < len(twice) < 300
    assert 80 < len(thrice) < 170


def test_where_windows_overlap_the_first_one_holds() -> None:
    provider = faulty({"kind": "status", "status": 500}, {"kind": "status", "status": 503})

    refusal = provider.submit(Job(1, 1), now=0.0)

    assert refusal is not None
    assert refusal.status == 500


def test_a_held_job_that_the_inner_provider_then_refuses_is_broken() -> None:
    limited = {"model": "rate_limited", "rpm": 60, "burst_s": 1.0, "inner": INNER}
    windows = [{"kind": "slow_first_token", "delay_s": 5}]
    provider = build_provider({"model": "faulty", "inner": limited, "windows": windows}, seed=0)
    for n in (1, 2):
        provider.submit(Job(n, 1), now=0.0)

    assert (5.0, 2, "broken") in drain(provider, until=5.0)
