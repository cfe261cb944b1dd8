"""Do no harm in trouble: with penstock as many calls are answered in time as without it, or more.

`python -m benchmarks.troubles` prints every row at every door; here are those that once failed, and
one of each kind.
"""

import pytest

from benchmarks.troubles.doors import DOORS
from benchmarks.troubles.provider import held_until
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
    "the first call is always answered 429",
    "the first 3 calls are always answered 429, 20 s",
    "the first call is always answered 503, 20 s",
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
OVER_SOCKETS = ("500, 20% of attempts", "reset, 20% of attempts", "one 'insufficient_quota'")
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


def test_a_program_that_hangs_over_sockets_fails_in_virtual_time() -> None:
    with pytest.raises(TimeoutError):
        DOORS["batch"](Trouble("silent", held_until(1e6)), with_penstock=False, seed=1)
