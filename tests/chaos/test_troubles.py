"""Do no harm in trouble: with penstock as many calls are answered in time as without it, or more.

`python -m benchmarks.troubles` prints every row at every door; here are those that once failed, and
one of each kind.
"""

import pytest

from benchmarks.troubles.callers import Calls
from benchmarks.troubles.doors import DOORS
from benchmarks.troubles.provider import during, held_until, refusal
from benchmarks.troubles.table import Trouble, troubles

ROWS = {each.name: each for each in troubles()}
SHORT = (
    "429, 5 s",
    "429, retry-after 1, 10 s",
    "503, 20 s",
    "529, 20 s",
    "500, 10 s",
    "reset, 5 s",
    "504 after 3 s, 5 s",
    "silent, 5 s",
    "429, retry-after 0, 10% of attempts",
    "429, 50% of attempts",
    "429, retry-after 1, 5% of attempts",
    "429, retry-after 1, 20% of attempts",
    "529, 30% of attempts",
    "529, 10% of attempts, calls of 20 s",
    "500, 50% of attempts",
    "one call in 20 is too large",
    "one call in 20 is always reset",
    "each call's first attempt: 503",
    "each call's first attempt: reset",
    "each call's first 2 attempts: 500",
    "the first call is always answered 429",
    "the first 3 calls are always answered 429, 20 s",
    "the first call is always answered 503, 20 s",
    "the first call is always answered 503, 3600 s",
    "one call in 20 is always answered 429, 20 s",
    "one call in 20 is always answered 503, 20 s",
    "200 calls a minute, not stated, one call in 20 always answered 429, 20 s",
    "one 503 with retry-after 40",
    "one 'insufficient_quota'",
    "one 429 with retry-after 3600",
    "one 503 with retry-after 1e300",
    "streams cut, 5 s",
    "a limit of 1 a minute stated once",
    "the program's loop held 0.3 s each second",
    "all at once, 503 above 8",
    "all at once, 529 for 5 s",
    "a fork amid 429",
    "another event loop amid 429",
    "threads and an event loop amid 429",
    "configured again amid 429",
)
OVER_SOCKETS = (
    "500, 20% of attempts",
    "reset, 20% of attempts",
    "one 'insufficient_quota'",
    "the first call is always answered 503, 3600 s",
)


class AsSdks(Calls):
    """Calls that say for how long their SDK waits, as OpenAI's and Anthropic's do."""

    @property
    def headers(self) -> dict[str, str]:
        return {"x-stainless-read-timeout": "60.0"}


over_sockets = pytest.mark.timeout(0)
"""What hangs fails by the doors' limit in virtual time: the real time is the machine's, 74 s for
one program at a load of 15 on 2 cores, of which 2 s are its own."""


def hold(name: str, door: str) -> None:
    row = ROWS[name]
    with_it = DOORS[door](row, with_penstock=True, seed=1)
    without = DOORS[door](row, with_penstock=False, seed=1)

    assert with_it.in_time >= without.in_time
    if row.until is not None and door != "batch":
        assert with_it.recovered(row.until)


@pytest.mark.parametrize("door", ["async", "sync"])
@pytest.mark.parametrize("name", SHORT)
def test_in_process_a_trouble_costs_no_call(name: str, door: str) -> None:
    hold(name, door)


@pytest.mark.parametrize("status", [429, 529])
def test_in_process_a_trouble_is_over_where_callers_leave(status: int) -> None:
    hold(f"{status}, 20 s, callers leave after 10 s", "async")


@pytest.mark.slow
@over_sockets
@pytest.mark.parametrize("name", OVER_SOCKETS)
def test_behind_a_sidecar_a_trouble_costs_no_call(name: str) -> None:
    hold(name, "sidecar")


@pytest.mark.slow
@over_sockets
@pytest.mark.parametrize("name", ["429, 5 s", "one call in 20 is too large"])
def test_in_a_batch_a_trouble_costs_no_line(name: str) -> None:
    hold(name, "batch")


@pytest.mark.parametrize(("door", "most"), [("async", 36), ("sync", 36), ("sidecar", 31)])
def test_who_states_no_deadline_is_told_in_time_that_nothing_is_served(
    door: str, most: int
) -> None:
    """One probe in two seconds for a minute, or until the SDK's time-out nears, and no SDK's retry.

    It was 96 at the sidecar, where each of the SDK's three tries timed out, and 303 in process.
    """
    row = Trouble("503 for ever", during(0.0, 1e9, refusal(503)), calls=AsSdks(count=1))

    assert 20 <= DOORS[door](row, with_penstock=True, seed=1).asked <= most


def test_a_program_that_hangs_over_sockets_fails_in_virtual_time() -> None:
    with pytest.raises(TimeoutError):
        DOORS["batch"](Trouble("silent", held_until(1e6)), with_penstock=False, seed=1)
