"""Limits configured for one model hold beside those of the account; the tighter counts."""

from dataclasses import replace

from hypothesis import given, settings

from penstock.core.events import Completed, LimitsSeen, Reconfigured, Woke
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Limits, UpstreamSettings
from tests.core.story import arrive, request, scheduler, tell, told, upstream
from tests.core.test_model_limits import ARRIVALS, SOON_S, several, when, when_all

FREE = Limits()


def limited(limits: Limits = FREE, **by_model: Limits) -> UpstreamSettings:
    return replace(upstream(window=1000, limits=limits), model_limits=by_model)


def with_limits(limits: Limits = FREE, **by_model: Limits) -> Scheduler:
    return scheduler(limited(limits, **by_model))


def test_a_models_configured_limit_binds_its_requests_and_lets_others_by() -> None:
    penstock = with_limits(small=Limits(requests_per_min=2.0))
    went = when(penstock, *several("small", 1, 2, 3), *several("big", *range(4, 40)))

    assert 60.0 <= went.pop(3) < 60.0 + SOON_S
    assert max(went.values()) < SOON_S


def test_the_tighter_of_the_accounts_and_the_models_limit_counts() -> None:
    account = Limits(requests_per_min=4.0)
    wide = with_limits(account, small=Limits(requests_per_min=100.0))
    went = when(wide, *several("small", 1, 2, 3, 4, 5))
    assert sum(at < 60.0 for at in went.values()) == 4

    narrow = with_limits(account, small=Limits(requests_per_min=1.0))
    went = when(narrow, *several("small", 1, 2), *several("big", 3, 4, 5, 6))
    assert sum(at < 60.0 for at in went.values()) == 4
    assert went[2] >= 60.0  # and does not keep from the others what the account allows


def test_a_models_second_and_day_hold_too() -> None:
    penstock = with_limits(small=Limits(requests_per_s=2.0, requests_per_day=5.0))
    went = when(penstock, *several("small", *range(6)), *several("big", *range(6, 40)))

    assert [went[id_] < 1.0 for id_ in range(6)] == [True, True, False, False, False, False]
    assert 2.0 <= went[4] < 10.0
    assert went[5] >= 86_400.0
    assert all(went[id_] < SOON_S for id_ in range(6, 40))


def test_tokens_of_a_models_day_are_settled_as_used() -> None:
    penstock = with_limits(small=Limits(tokens_per_day=1000.0))
    for id_ in range(14):
        at = float(id_)
        assert arrive(penstock, request(id_, at=at, cost=300.0, model="small"))
        tell(penstock, (at + 0.5, Completed(id_, 50, 0)))

    assert arrive(penstock, request(14, at=14.0, cost=301.0, model="small")) == []


def test_headers_tighten_a_configured_limit_and_never_loosen_it() -> None:
    for stated, passing in ((100.0, 3), (2.0, 2)):
        penstock = with_limits(small=Limits(requests_per_min=3.0))
        tell(penstock, (0.0, LimitsSeen("default", limit_requests=stated, model="small")))
        went = when(penstock, *several("small", *range(5)))
        assert sum(at < 60.0 for at in went.values()) == passing


def test_a_configured_limit_outlives_the_names_of_many_models() -> None:
    penstock = with_limits(small=Limits(requests_per_min=1.0))
    tell(penstock, (0.0, LimitsSeen("default", limit_requests=1.0, model="small")))
    for index in range(300):
        tell(penstock, (0.0, LimitsSeen("default", limit_requests=9.0, model=f"m{index}")))

    assert when(penstock, *several("small", 1, 2))[2] >= 60.0


def test_a_models_reservation_above_its_whole_minute_is_refused_in_words() -> None:
    penstock = with_limits(small=Limits(tokens_per_min=500.0, charged="reservation"))

    assert arrive(penstock, request(1, cost=900.0, model="small")) == [("reject", 1, "too_large")]
    assert arrive(penstock, request(2, cost=900.0, model="big")) == [("dispatch", 2, "default")]


def test_a_models_limit_at_one_upstream_sends_its_requests_to_another() -> None:
    penstock = scheduler(
        limited(small=Limits(requests_per_min=1.0)), upstream("other", window=1000)
    )

    assert arrive(penstock, *several("small", 1, 2)) == [
        ("dispatch", 1, "default"), ("dispatch", 2, "other")
    ]  # fmt: skip


def test_a_reload_brings_a_models_limit_and_takes_it_away() -> None:
    penstock = with_limits()
    narrow = replace(penstock.settings, upstreams=(limited(small=Limits(requests_per_min=1.0)),))
    wide = penstock.settings
    penstock.handle(Reconfigured(narrow), now=0.0)
    assert arrive(penstock, *several("small", 1, 2)) == [("dispatch", 1, "default")]

    assert told(penstock.handle(Reconfigured(wide), now=1.0)) == [("dispatch", 2, "default")]
    assert told(penstock.handle(Woke(), now=70.0)) == []


@given(arrivals=ARRIVALS)
@settings(deadline=None)
def test_everybody_goes_and_no_models_minute_is_exceeded(
    arrivals: list[tuple[str, str, float, float]],
) -> None:
    at, requests = 0.0, []
    for id_, (traffic_class, model, gap_s, cost) in enumerate(arrivals):
        at += gap_s
        requests.append(request(id_, traffic_class, at=at, model=model, cost=cost))
    by_model = {
        "small": Limits(requests_per_min=6.0, tokens_per_min=1500.0),
        "tiny": Limits(requests_per_min=1.0, requests_per_day=100.0),
    }

    went = when_all(with_limits(Limits(requests_per_min=20.0), **by_model), requests)

    assert sorted(went) == [one.id for one in requests]
    for model, limit in (("small", 6), ("tiny", 1)):
        times = sorted(went[one.id] for one in requests if one.model == model)
        assert all(b - a >= 60.0 for a, b in zip(times, times[limit:], strict=False))
