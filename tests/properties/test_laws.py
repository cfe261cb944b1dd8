"""What holds in every world: any stack, any workload, any fault."""

import math

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as given_settings

from penstock.core.backoff import REQUEST_CAP_S
from penstock.core.events import Dispatch, Failed, RefusalCause, Reject, Throttled, Woke
from penstock.core.settings import Limits, Settings
from penstock.core.upstream.breaker import BACKOFF_CAP_S, LONGEST_PAUSE_S, PROBE_GAP_S
from penstock.core.upstream.meter import GRAIN_SHARE, GUARD_SHARE, MINUTE_S
from penstock.core.upstream.rate import LONGEST_GAP_S
from tests.core.story import decisions, is_at_rest
from tests.properties.world import Run, World, begin, finish
from tests.properties.worlds import worlds

SERVICE_S = 40.0
"""The longest attempt of these worlds: a driver's time-out, where an upstream never answers."""
WELL_S = 1.0
"""An attempt after the last drawn one."""
REQUEST_S = max(REQUEST_CAP_S, BACKOFF_CAP_S, PROBE_GAP_S)
"""The longest own wait of a request or of a circuit that no provider has asked for."""

in_many_worlds = given_settings(
    max_examples=100, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@in_many_worlds
@given(worlds())
def test_every_request_ends_in_exactly_one_outcome(world: World) -> None:
    run = finish(world)

    assert {id_: len(words) for id_, words in run.outcomes.items()} == {
        caller.request.id: 1 for caller in world.callers
    }
    assert not run.flying


@in_many_worlds
@given(worlds())
def test_nothing_is_left_when_the_last_request_has_ended(world: World) -> None:
    assert is_at_rest(finish(world).penstock)


@in_many_worlds
@given(worlds())
def test_something_flies_or_a_wake_up_is_set_whenever_something_waits(world: World) -> None:
    run = begin(world)
    for now, event, _ in run.steps():
        seen = run.penstock.snapshot()
        wakes_at = run.penstock.next_wakeup()
        if seen.waiting or seen.deferred:
            assert seen.in_flight or wakes_at is not None, (now, event)
        if isinstance(event, Woke) and wakes_at is not None:
            assert wakes_at > now, "it would wake for ever at one instant"


@in_many_worlds
@given(worlds())
def test_the_ledgers_agree_with_what_was_said(world: World) -> None:
    run = begin(world)
    for _ in run.steps():
        seen = run.penstock.snapshot()
        held = [id_ for id_ in run.alive if id_ not in run.flying]
        assert seen.waiting + seen.deferred == len(held)
        for name, upstream in seen.upstreams.items():
            there = [d.request for d in run.flying.values() if d.upstream == name]
            assert upstream.in_flight == len(there)
            assert upstream.in_flight_tokens == pytest.approx(sum(r.cost_tokens for r in there))
        for lane in seen.lanes:
            assert 0.0 <= lane.severity <= 1.0
            assert 0.0 <= lane.pressure <= 1.0
            assert lane.waiting == sum(c.waiting for c in lane.classes.values())
            assert all(c.waiting_tokens >= c.waiting for c in lane.classes.values())


@in_many_worlds
@given(worlds())
def test_windows_and_request_limits_are_kept(world: World) -> None:
    run = begin(world)
    sent: dict[str, list[float]] = {u.name: [] for u in world.settings.upstreams}
    for now, _, actions in run.steps():
        for upstream in world.settings.upstreams:
            _check_window(run, upstream.name)
        for action in actions:
            if isinstance(action, Dispatch):
                sent[action.upstream].append(now)
    for upstream in world.settings.upstreams:
        _check_rate(sent[upstream.name], upstream.limits)


def _check_window(run: Run, name: str) -> None:
    spec = next(u.capacity for u in run.world.settings.upstreams if u.name == name)
    if spec is None:
        return
    window, most = spec.options["window"], spec.options["window_tokens"]
    assert isinstance(window, float)
    assert isinstance(most, float)
    there = [d.request for d in run.flying.values() if d.upstream == name]
    assert len(there) <= math.ceil(window)
    assert len(there) <= 1 or sum(r.cost_tokens for r in there) <= most


def _check_rate(sent: list[float], limits: Limits) -> None:
    if limits.requests_per_min == math.inf:
        return
    most = int(limits.requests_per_min)
    for first, one_too_many in zip(sent, sent[most:], strict=False):
        assert one_too_many - first >= 60.0 - 1e-6


@in_many_worlds
@given(worlds())
def test_a_refusal_says_when_to_come_back_and_every_wait_has_a_cause(world: World) -> None:
    run = finish(world)
    first_tries: set[int] = set()
    for now, _, actions in run.log:
        for action in decisions(actions):
            why = action.why
            assert all(seconds >= 0.0 for seconds in why.waits.values())
            assert why.waited_s == now - action.request.arrived_at
            if isinstance(action, Reject):
                assert action.retry_after_s is None or action.retry_after_s >= 0.0
            elif isinstance(action, Dispatch) and action.request.id not in first_tries:
                first_tries.add(action.request.id)
                assert sum(why.waits.values()) == pytest.approx(why.waited_s)
                assert "" not in why.waits


@in_many_worlds
@given(worlds())
def test_the_same_events_at_the_same_times_give_the_same_decisions(world: World) -> None:
    first = finish(world)
    again = begin(world)

    for now, event, actions in first.log:
        assert again.penstock.handle(event, now=now) == actions


@in_many_worlds
@given(worlds())
def test_looking_changes_nothing(world: World) -> None:
    first = finish(world)
    again = begin(world)

    for now, event, actions in first.log:
        again.penstock.snapshot()
        again.penstock.next_wakeup()
        again.penstock.snapshot()
        assert again.penstock.handle(event, now=now) == actions


@in_many_worlds
@given(worlds())
def test_no_request_is_sent_twice_at_one_instant(world: World) -> None:
    run = finish(world)

    sent = [(now, a.request.id) for now, _, acts in run.log for a in acts if type(a) is Dispatch]
    assert len(set(sent)) == len(sent)


def longest_look_s(refusals: list[Throttled], settings: Settings) -> float:
    """Return after how long at most somebody looks again, by what was said until now."""
    look_s = REQUEST_S
    for each in refusals:
        own_s = {RefusalCause.QUOTA: LONGEST_PAUSE_S, RefusalCause.RATE: LONGEST_GAP_S}
        stated_s = min(each.retry_after_s or 0.0, settings.max_pause_s)
        look_s = max(look_s, stated_s, own_s.get(each.cause, 0.0))
    if any(upstream.limits != Limits() for upstream in settings.upstreams):
        look_s = max(look_s, MINUTE_S * (1.0 + GUARD_SHARE + GRAIN_SHARE))
    return look_s


@in_many_worlds
@given(worlds())
def test_whatever_holds_a_request_back_is_looked_at_again_within_a_stated_bound(
    world: World,
) -> None:
    run = begin(world)
    refusals: list[Throttled] = []
    for now, event, _ in run.steps():
        if isinstance(event, Throttled):
            refusals.append(event)
        seen = run.penstock.snapshot()
        look_s = longest_look_s(refusals, world.settings)
        circuits = [pause for each in seen.upstreams.values() for pause in each.pauses]
        for pause in circuits:
            assert pause.until <= now + look_s
        if (seen.waiting or seen.deferred) and not seen.in_flight:
            wakes_at = run.penstock.next_wakeup()
            assert wakes_at is not None
            assert wakes_at <= now + look_s + 1e-6, (now, event)


@in_many_worlds
@given(worlds())
def test_where_the_provider_serves_again_every_request_goes_within_a_stated_bound(
    world: World,
) -> None:
    limited = any(u.limits != Limits() for u in world.settings.upstreams)
    run = finish(world)
    if limited or world.drains_at < math.inf:
        return
    # Fates are used up by attempts: from the last bad one on, all goes well.
    bad = [(now, event) for now, event, _ in run.log if isinstance(event, Throttled | Failed)]
    well_at = max((now for now, _ in bad), default=0.0)
    look_s = longest_look_s([e for _, e in bad if isinstance(e, Throttled)], world.settings)
    # One wait that was asked for, what flies, and everybody before it, one by one.
    bound_s = look_s + SERVICE_S + WELL_S * len(world.callers)
    for now, _, actions in run.log:
        for action in actions:
            if isinstance(action, Dispatch) and now > well_at:
                waited_s = now - max(well_at, action.request.arrived_at)
                assert waited_s <= bound_s
