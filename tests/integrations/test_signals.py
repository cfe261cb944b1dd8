"""A signal that comes as the scheduler decides is heard once it has decided, and once only."""

import asyncio
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from penstock import Penstock, Usage
from penstock.core.events import Action, Dispatch
from tests.integrations.http.rig import Tape, assert_idle, penstock_with


class _Signalled(Tape):
    """A signal comes as it is told of a decision; it may do more."""

    def __init__(self, also: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self._also = also

    def action(self, now: float, action: Action) -> None:
        if isinstance(action, Dispatch):
            signal.raise_signal(signal.SIGTERM)
            self._also()


@pytest.fixture(autouse=True)
def own_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


def _held_once(scheduled: Penstock) -> None:
    async def call() -> None:
        async with scheduled.gate().admit() as slot:
            slot.settle(Usage(7))

    asyncio.run(call())


def test_a_handler_that_ends_the_program_is_heard_as_an_observer_runs_in_a_loop() -> None:
    scheduled = penstock_with(window=1, tape=_Signalled())
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
    with pytest.raises(SystemExit):
        _held_once(scheduled)
    assert_idle(scheduled)


def test_a_loops_handler_is_told_once_of_a_signal_that_comes_as_an_observer_runs() -> None:
    told: list[int] = []
    scheduled = penstock_with(window=1, tape=_Signalled())

    async def call() -> None:
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, told.append, 1)
        async with scheduled.gate().admit() as slot:
            slot.settle(Usage(7))
        for _ in range(5):
            await asyncio.sleep(0)

    asyncio.run(call())
    assert told == [1]


def test_a_handler_that_is_set_in_an_observer_stays_and_the_one_it_found_can_be_set_again() -> None:
    told: list[str] = []
    found: list[Any] = []
    signal.signal(signal.SIGTERM, lambda *_: told.append("old"))

    def set_another() -> None:
        found.append(signal.signal(signal.SIGTERM, lambda *_: told.append("new")))

    scheduled = penstock_with(window=1, tape=_Signalled(set_another))
    _held_once(scheduled)  # the signal came before the other was set, and waited
    signal.raise_signal(signal.SIGTERM)
    signal.signal(signal.SIGTERM, found[0])
    signal.raise_signal(signal.SIGTERM)
    assert told == ["new", "new", "old"]
