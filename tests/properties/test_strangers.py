"""Nobody waits for a stranger: a few calls that are always refused hold up the others not long."""

from hypothesis import given
from hypothesis import settings as given_settings
from hypothesis import strategies as st

from penstock.core.events import Dispatch, RefusalCause
from penstock.core.settings import Settings, Stack
from tests.core.story import BOTH, request, upstream
from tests.properties.test_laws import REQUEST_S, WELL_S
from tests.properties.world import Caller, Fate, World, begin

CALLS = 60


@given(
    cause=st.sampled_from([RefusalCause.RATE, RefusalCause.OVERLOAD]),
    wait_s=st.sampled_from([None, 1.0, 5.0, 20.0, 59.0]),
    refused=st.sets(st.integers(0, CALLS - 1), max_size=7),
    every_s=st.sampled_from([0.05, 0.25, 1.0, 3.0]),
    refusal_s=st.sampled_from([0.01, 0.2]),
    service_s=st.sampled_from([0.05, 0.5, 3.0]),
    jitter=st.sampled_from([0.0, 0.5, 0.999]),
)
@given_settings(max_examples=100, deadline=None)
def test_calls_that_are_always_refused_hold_up_others_for_seconds_whatever_wait_they_are_told(
    cause: RefusalCause,
    wait_s: float | None,
    refused: set[int],
    every_s: float,
    refusal_s: float,
    service_s: float,
    jitter: float,
) -> None:
    """Whether it is about the account can only be told once another call has passed."""
    callers = (request(n, at=n * every_s, deadline=n * every_s + 1e4) for n in range(CALLS))
    told = Fate(str(cause), refusal_s, None, wait_s, jitter=jitter)
    world = World(
        Settings(BOTH, (upstream(window=max(8.0, 4.0 * service_s / every_s)),), Stack()),
        tuple(Caller(each) for each in callers),
        always=dict.fromkeys(refused, told),
        well=Fate(after_s=service_s),
    )
    bound_s = (len(refused) + 1) * REQUEST_S + service_s + WELL_S
    longest_s, waiting = 0.0, set(range(CALLS)) - refused
    for now, _, actions in begin(world).steps():
        for action in actions:
            if isinstance(action, Dispatch) and action.request.id in waiting:
                waiting.remove(action.request.id)
                longest_s = max(longest_s, now - action.request.arrived_at)
        if not waiting:
            break

    assert not waiting
    assert longest_s <= bound_s
