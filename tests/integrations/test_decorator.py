"""@scheduled limits whatever makes calls, or says that it cannot."""

import asyncio
import contextvars
import functools
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

import penstock
from penstock import Penstock, Usage
from penstock.core.events import Cancelled, Completed, FirstToken
from tests.integrations.http.rig import Tape, assert_idle, penstock_with


class Crowd:
    """Counts how many are inside at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __enter__(self) -> None:
        self.now += 1
        self.most = max(self.most, self.now)

    def __exit__(self, *_error: object) -> None:
        self.now -= 1


class Asks:
    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd

    async def __call__(self, _number: int) -> int:
        with self.crowd:
            await asyncio.sleep(0.001)
        return 7


class Streams:
    def __init__(self, crowd: Crowd) -> None:
        self.crowd = crowd

    async def __call__(self, _number: int) -> AsyncIterator[int]:
        with self.crowd:
            for item in range(3):
                await asyncio.sleep(0.001)
                yield item


def coroutine_function(crowd: Crowd) -> Any:
    return Asks(crowd).__call__


def async_callable(crowd: Crowd) -> Any:
    return Asks(crowd)


def partial_of_a_coroutine_function(crowd: Crowd) -> Any:
    async def ask(prefix: str, number: int) -> int:
        return await Asks(crowd)(number)

    return functools.partial(functools.partial(ask), "x")


def partial_of_an_async_callable(crowd: Crowd) -> Any:
    return functools.partial(Asks(crowd))


def static_method(crowd: Crowd) -> Any:
    return staticmethod(Asks(crowd).__call__)


def async_generator(crowd: Crowd) -> Any:
    return Streams(crowd).__call__


def callable_with_an_async_generator(crowd: Crowd) -> Any:
    return Streams(crowd)


@pytest.mark.parametrize(
    "make",
    [
        coroutine_function,
        async_callable,
        partial_of_a_coroutine_function,
        partial_of_an_async_callable,
        static_method,
        async_generator,
        callable_with_an_async_generator,
    ],
    ids=lambda make: make.__name__,
)
async def test_it_limits(make: Callable[[Crowd], Any]) -> None:
    crowd, tape = Crowd(), Tape()
    scheduled = penstock_with(2, tape)
    ask: Any = penstock.scheduled(penstock=scheduled)(make(crowd))

    async def one(number: int) -> None:
        called = ask(number)
        if isinstance(called, Awaitable):
            assert await called == 7
        else:
            assert [item async for item in called] == [0, 1, 2]

    async with asyncio.timeout(100):
        await asyncio.gather(*(one(number) for number in range(10)))
    assert crowd.most == 2
    assert len(tape.of(Completed)) == 10
    assert_idle(scheduled)


class Piece:
    def __init__(self, tokens: int | None) -> None:
        self.usage = None if tokens is None else type("U", (), {"completion_tokens": tokens})


async def test_a_generator_is_settled_with_its_last_items_usage() -> None:
    tape = Tape()
    scheduled = penstock_with(1, tape)

    @penstock.scheduled(penstock=scheduled)
    async def stream() -> AsyncIterator[Piece]:
        yield Piece(None)
        yield Piece(12)

    @penstock.scheduled(penstock=scheduled, usage=lambda item: Usage(len(item)))
    def lines() -> Iterator[str]:
        yield "a"
        yield "abc"

    assert len([piece async for piece in stream()]) == 2
    assert list(lines()) == ["a", "abc"]
    assert [end.output_tokens for end in tape.of(Completed)] == [12, 3]
    assert len(tape.of(FirstToken)) == 2
    assert_idle(scheduled)


async def test_a_generator_that_is_left_gives_its_slot_back() -> None:
    tape = Tape()
    scheduled = penstock_with(1, tape)

    @penstock.scheduled(penstock=scheduled)
    async def stream() -> AsyncIterator[int]:
        yield 1
        yield 2

    async for _item in stream():
        break
    async with asyncio.timeout(100):
        await asyncio.create_task(one_more(scheduled), context=contextvars.Context())
    assert len(tape.of(Cancelled)) == 1
    assert_idle(scheduled)


async def one_more(scheduled: Penstock) -> None:
    async with scheduled.gate().admit():
        pass


def test_a_class_method_is_limited_too() -> None:
    scheduled = penstock_with()

    class Model:
        @penstock.scheduled(penstock=scheduled)
        @classmethod
        def ask(cls) -> int:
            return scheduled.snapshot()["default"].in_flight

    assert Model.ask() == 1
    assert_idle(scheduled)


async def test_what_it_cannot_limit_it_refuses_in_words() -> None:
    scheduled = penstock_with()
    decorate: Any = penstock.scheduled(penstock=scheduled)

    async def ask() -> int:
        return 1

    async def stream() -> AsyncIterator[int]:
        yield 1

    for makes, what in (
        (lambda: ask(), "an awaitable"),
        (lambda: stream(), "an async generator"),
        (lambda: (each for each in "ab"), "a generator"),
    ):
        with pytest.raises(TypeError, match=f"it returned {what}, .*decorate the `async def`"):
            decorate(makes)()
    assert_idle(scheduled)


def test_brackets_that_were_left_out_are_asked_for() -> None:
    bare: Any = penstock.scheduled
    with pytest.raises(TypeError, match=r"were its brackets left out\? Write @penstock.scheduled"):
        bare(len)


@pytest.mark.parametrize("wrong", [Crowd, 7, None])
def test_what_makes_no_call_is_refused_where_it_is_decorated(wrong: Any) -> None:
    with pytest.raises(TypeError, match="it takes functions, methods and objects"):
        penstock.scheduled()(wrong)
