"""`keeps_cancelled`: who leaves does not free the place."""

from penstock.sim.providers.base import Job, Provider
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import drain, ends


def one_place(**more: object) -> Provider:
    table = {"model": "slots", "slots": 1, "tokens_per_s": 10.0, "ttft_s": 1.0, **more}
    return build_provider(table, seed=0)


def test_the_next_waits_until_the_work_for_the_one_that_left_is_done() -> None:
    found = {}
    for keeps in (False, True):
        provider = one_place(keeps_cancelled=keeps)
        provider.submit(Job(1, 90), now=0.0)
        provider.submit(Job(2, 10), now=0.0)
        drain(provider, until=5.0)
        provider.cancel(1, now=5.0)
        found[keeps] = ends(drain(provider, until=100.0))

    assert found == {False: {2: 7.0}, True: {2: 12.0}}


def test_nobody_is_told_of_the_end_of_what_was_left_but_it_fills_the_provider() -> None:
    provider = one_place(keeps_cancelled=True)
    provider.submit(Job(1, 90), now=0.0)

    provider.cancel(1, now=0.5)

    assert provider.load().active == 1
    assert provider.tokens_done(1, now=0.5) == 0
    assert drain(provider, until=100.0) == []
    assert provider.load().active == 0


def test_who_comes_back_is_served_anew_beside_the_attempt_that_was_left() -> None:
    provider = one_place(keeps_cancelled=True, slots=2)
    provider.submit(Job(1, 90), now=0.0)
    drain(provider, until=2.0)
    provider.cancel(1, now=2.0)

    provider.submit(Job(1, 90), now=2.0)
    drain(provider, until=4.0)

    assert provider.load().active == 2
    assert provider.tokens_done(1, now=4.0) == 10
    assert drain(provider, until=100.0) == [(12.0, 1, "finished")]
    assert provider.load().active == 0


def test_an_engine_may_be_left_twice_by_one_caller() -> None:
    provider = one_place(keeps_cancelled=True, slots=3)
    for at in (0.0, 1.0, 2.0):
        drain(provider, until=at)
        provider.submit(Job(1, 40), now=at)
        if at < 2.0:
            provider.cancel(1, now=at)

    assert provider.load().active == 3
    assert ends(drain(provider, until=100.0)) == {1: 7.0}
