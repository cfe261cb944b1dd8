"""Limits that an upstream states for one model bind that model's requests and no others."""

import math

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.events import Arrived, Cancelled, Completed, LimitsSeen, Woke
from penstock.core.model import Request
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Limits, PolicySpec
from tests.core.story import arrive, is_at_rest, request, scheduler, tell, told, upstream

WIDE = upstream(window=1000)
SOON_S = 2.0
"""A limit's pace may hold one back so long; the limit itself holds it for a minute."""


def stating(*upstreams: object, small: float = 2.0, big: float = 6000.0) -> Scheduler:
    """Return a scheduler whose upstream has stated what two models may have in a minute."""
    penstock = scheduler(*(upstreams or (WIDE,)))  # type: ignore[arg-type]
    tell(
        penstock,
        (0.0, LimitsSeen("default", limit_requests=big, model="big")),
        (0.0, LimitsSeen("default", limit_requests=small, model="small")),
    )
    return penstock


def several(model: str, *ids: int, at: float = 0.0, traffic_class: str = "batch") -> list[Request]:
    return [request(id_, traffic_class, at=at, model=model) for id_ in ids]


def when(penstock: Scheduler, *requests: Request) -> dict[int, float]:
    """Let requests arrive and the clock run; return when each went."""
    went: dict[int, float] = {}
    for one in requests:
        actions = penstock.handle(Arrived(one), now=one.arrived_at)
        went |= {word[1]: one.arrived_at for word in told(actions) if word[0] == "dispatch"}  # type: ignore[misc]
    while (at := penstock.next_wakeup()) is not None:
        words = told(penstock.handle(Woke(), now=at))
        went |= {word[1]: at for word in words if word[0] == "dispatch"}  # type: ignore[misc]
    return went


def test_a_models_limits_do_not_bind_another_model() -> None:
    went = when(stating(), *several("small", 1, 2), *several("big", *range(3, 40)))

    assert max(went.values()) < SOON_S


def test_what_waits_for_its_models_limit_does_not_hold_up_its_class() -> None:
    went = when(stating(), *several("small", 1, 2, 3, 4, 5), *several("big", 6, 7, 8))

    assert max(went[id_] for id_ in (1, 2, 6, 7, 8)) < SOON_S
    assert 60.0 <= went[3] < 60.0 + SOON_S
    assert went[3] <= went[4] < went[5]  # its own order is kept
    assert went[5] >= 120.0


def test_those_who_come_later_queue_behind_those_of_their_model() -> None:
    penstock = stating()
    went = when(penstock, *several("small", 1, 2, 3), *several("small", 4, at=1.0))

    assert went[3] <= went[4]


def test_the_accounts_limits_bind_all_models_together() -> None:
    penstock = stating(upstream(window=100, limits=Limits(requests_per_min=4.0)))
    went = when(penstock, *several("small", 1, 2), *several("big", 3, 4, 5, 6))

    assert sum(at < 60.0 for at in went.values()) == 4


def test_what_both_limits_hold_back_waits_for_its_models_aside() -> None:
    penstock = stating(upstream(window=100, limits=Limits(requests_per_min=4.0)), small=1.0)
    went = when(penstock, *several("small", 1, 2), *several("big", 3, 4, 5))

    assert went[2] >= 60.0
    assert max(went[3], went[4], went[5]) < 60.0  # the account has room for them


def test_limits_that_name_no_model_are_the_accounts() -> None:
    penstock = scheduler(WIDE)
    tell(penstock, (0.0, LimitsSeen("default", limit_requests=2.0)))
    went = when(penstock, *several("small", 1), *several("big", 2, 3))

    assert max(went[1], went[2]) < SOON_S
    assert went[3] >= 60.0


def test_where_another_upstream_has_room_nobody_stands_aside() -> None:
    penstock = stating(WIDE, upstream("other", window=1), small=1.0)
    first = arrive(penstock, *several("small", 1, 2, 3), *several("big", 4))
    assert first == [
        ("dispatch", 1, "default"), ("dispatch", 2, "other"), ("dispatch", 4, "default")
    ]  # fmt: skip

    assert told(penstock.handle(Completed(2, 100), now=1.0)) == [("dispatch", 3, "other")]


def test_a_dear_request_that_stands_aside_is_not_passed_by_for_ever() -> None:
    penstock = scheduler(WIDE)
    tell(penstock, (0.0, LimitsSeen("default", limit_tokens=1000.0, model="small")))
    flow = [request(0, "batch", model="small", cost=500.0)]
    flow += [request(1, "batch", model="small", cost=900.0)]
    cheap = [
        request(id_, "interactive", at=id_ * 2.0, model="small", cost=30.0) for id_ in range(2, 200)
    ]
    went = when_all(penstock, [*flow, *cheap])

    passed = sum(went[one.id] < went[1] for one in cheap)
    assert passed <= 16
    assert len(went) == 200


def when_all(penstock: Scheduler, requests: list[Request]) -> dict[int, float]:
    """Let requests arrive at their times, wake-ups in between; return when each went."""
    went: dict[int, float] = {}
    for one in [*requests, None]:
        until = math.inf if one is None else one.arrived_at
        while (at := penstock.next_wakeup()) is not None and at < until:
            for word in told(penstock.handle(Woke(), now=at)):
                went[word[1]] = at  # type: ignore[index]
        if one is not None:
            for word in told(penstock.handle(Arrived(one), now=until)):
                went[word[1]] = until  # type: ignore[index]
    return went


def test_what_stands_aside_can_be_cancelled_and_can_expire() -> None:
    penstock = stating(small=1.0)
    expiring = request(3, model="small", expires_at=5.0)
    assert arrive(penstock, *several("small", 1, 2), expiring) == [("dispatch", 1, "default")]
    assert penstock.snapshot().waiting == 2

    assert told(penstock.handle(Woke(), now=5.0)) == [("reject", 3, "expired")]
    penstock.handle(Cancelled(2), now=6.0)
    penstock.handle(Completed(1, 100), now=7.0)
    assert is_at_rest(penstock)


def test_limits_are_kept_for_a_bounded_number_of_models() -> None:
    penstock = stating(small=1.0)
    for index in range(256):
        tell(penstock, (0.0, LimitsSeen("default", limit_requests=1.0, model=f"m{index}")))
    went = when(penstock, *several("small", 1, 2), *several("m255", 3, 4))

    assert max(went[1], went[2]) < SOON_S  # the longest silent is forgotten
    assert went[4] >= 60.0


ARRIVALS = st.lists(
    st.tuples(
        st.sampled_from(["interactive", "batch"]),
        st.sampled_from(["big", "small", "tiny"]),
        st.floats(0.0, 5.0),
        st.sampled_from([10.0, 300.0, 900.0]),
    ),
    min_size=1,
    max_size=60,
)


@given(arrivals=ARRIVALS, ordering=st.sampled_from(["fifo", "feasible_set"]))
@settings(deadline=None)
def test_nobody_is_forgotten_aside_and_no_models_minute_is_exceeded(
    arrivals: list[tuple[str, str, float, float]], ordering: str
) -> None:
    at, requests = 0.0, []
    for id_, (traffic_class, model, gap_s, cost) in enumerate(arrivals):
        at += gap_s
        requests.append(request(id_, traffic_class, at=at, model=model, cost=cost))

    def told_story() -> dict[int, float]:
        penstock = scheduler(
            WIDE, allocation=PolicySpec("adaptive_drr"), ordering=PolicySpec(ordering)
        )
        for model, limit in (("small", 6.0), ("tiny", 1.0)):
            seen = LimitsSeen("default", limit_requests=limit, limit_tokens=1500.0, model=model)
            tell(penstock, (0.0, seen))
        return when_all(penstock, requests)

    went = told_story()
    assert sorted(went) == [one.id for one in requests]
    for model, limit in (("small", 6), ("tiny", 1)):
        times = sorted(went[one.id] for one in requests if one.model == model)
        assert all(b - a >= 60.0 for a, b in zip(times, times[limit:], strict=False))
    assert told_story() == went
