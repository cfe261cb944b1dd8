"""Why a request waited is told in every world: whole, by cause, and to whoever leaves too."""

from collections import defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import Abandoned, Arrived, Cancelled, Decision, Dispatch, Reject
from penstock.core.model import TrafficClass
from penstock.core.settings import PolicySpec, Settings, Stack
from tests.core.story import upstream
from tests.properties.test_laws import in_many_worlds
from tests.properties.world import World, begin, finish
from tests.properties.worlds import CLASSES, Code, callers_of, specs, worlds

CAUSES = {"class", "window", "limits", "upstream", "deferral", "backoff"}


@in_many_worlds
@given(worlds())
def test_what_a_request_waited_for_adds_up_to_all_the_time_in_which_it_did_not_fly(
    world: World,
) -> None:
    run = begin(world)
    flown_s: dict[int, float] = defaultdict(float)
    flies_since: dict[int, float] = {}
    for now, _, actions in run.steps():
        for id_ in [id_ for id_ in flies_since if id_ not in run.flying]:
            flown_s[id_] += now - flies_since.pop(id_)
        for action in actions:
            if not isinstance(action, Decision | Abandoned):
                continue
            id_, waits = action.request.id, action.why.waits
            if id_ in flies_since:  # it came back and went again at once
                flown_s[id_] += now - flies_since.pop(id_)
            waited_s = now - action.request.arrived_at - flown_s[id_]
            assert waits.keys() <= CAUSES
            assert sum(waits.values()) == pytest.approx(waited_s, abs=1e-9)
            if isinstance(action, Dispatch):
                flies_since[id_] = now


@in_many_worlds
@given(worlds())
def test_whoever_leaves_while_waiting_is_told_of_once_and_nobody_else_is(world: World) -> None:
    run = begin(world)
    waiting: set[int] = set()
    for _, event, actions in run.steps():
        left = [action.request.id for action in actions if isinstance(action, Abandoned)]
        leaves = {event.request_id} if isinstance(event, Cancelled) else set()
        assert left == list(leaves & waiting)
        waiting = set(run.alive) - run.flying.keys()


@in_many_worlds
@given(worlds())
def test_at_any_time_whoever_waits_waits_for_something(world: World) -> None:
    run = begin(world)
    for now, _, _ in run.steps():
        for id_ in run.alive:
            place = run.penstock.waiting.place(id_, now=now)
            assert (place is None) == (id_ in run.flying)
            assert place is None or place.cause in CAUSES


@in_many_worlds
@given(specs("allocation"), specs("ordering"), st.lists(st.integers(0, Code.SIZE - 1), min_size=8))
def test_the_others_that_were_sent_meanwhile_are_counted_for_whoever_waits_in_line(
    allocation: PolicySpec, ordering: PolicySpec, numbers: list[int]
) -> None:
    """Where nothing fails and nothing is limited, nobody waits alone."""
    stack = Stack(allocation, ordering, PolicySpec("always_admit"))
    classes = tuple(TrafficClass(name) for name in CLASSES)
    penstock = Settings(classes, (upstream(window=2.0),), stack)
    sent: dict[str, int] = defaultdict(int)
    came_after: dict[int, int] = {}
    for _, event, actions in finish(World(penstock, callers_of(numbers[:60]))).log:
        if isinstance(event, Arrived):
            name = event.request.traffic_class
            came_after[event.request.id] = sent[name]
        for action in actions:
            if isinstance(action, Dispatch | Reject | Abandoned):
                name = action.request.traffic_class
                assert action.why.sent_meanwhile == sent[name] - came_after[action.request.id]
                sent[name] += isinstance(action, Dispatch)
