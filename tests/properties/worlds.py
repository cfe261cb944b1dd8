"""Worlds for hypothesis to draw: stacks, upstreams, workloads and faults."""

import math
from typing import TypeVar

from hypothesis import strategies as st

from penstock.core.events import RefusalCause
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.settings import Limits, PolicySpec, Settings, Stack, UpstreamSettings
from penstock.policies.registry import POLICIES
from tests.properties.world import Caller, Fate, World

CLASSES = ("interactive", "batch", "nightly")
COSTS = (30.0, 1.0, 64.0, 200.0, 900.0, 3000.0)

_Choice = TypeVar("_Choice")


def specs(layer: str) -> st.SearchStrategy[PolicySpec]:
    """Any policy of a layer, as the registry has it."""
    return st.sampled_from(sorted(POLICIES[layer])).map(PolicySpec)


def stacks() -> st.SearchStrategy[Stack]:
    """Any stack at all."""
    return st.builds(
        Stack, specs("allocation"), specs("ordering"), specs("overload"), specs("capacity")
    )


@st.composite
def classes(draw: st.DrawFn) -> tuple[TrafficClass, ...]:
    """Three classes of any weight, with or without small queues."""
    return tuple(
        TrafficClass(
            name,
            weight=draw(st.sampled_from([0.1, 0.7, 1.0, 4.0, 25.0])),
            queue_limit=draw(st.sampled_from([1, 5, 1000])),
            queue_limit_tokens=draw(st.sampled_from([500.0, math.inf])),
        )
        for name in CLASSES
    )


def limits() -> st.SearchStrategy[Limits]:
    """Limits a minute, mostly none."""
    return st.one_of(
        st.just(Limits()),
        st.builds(
            Limits,
            st.sampled_from([math.inf, 3.0, 20.0]),
            st.sampled_from([math.inf, 2000.0]),
            st.sampled_from([math.inf, 300.0]),
            st.sampled_from([math.inf, 1000.0]),
        ),
    )


def capacities() -> st.SearchStrategy[PolicySpec | None]:
    """A fixed window of requests, perhaps of tokens too, or whatever the stack says."""
    fixed = st.builds(
        lambda window, tokens: PolicySpec("fixed", {"window": window, "window_tokens": tokens}),
        st.sampled_from([1.0, 2.0, 3.0, 8.0]),
        st.sampled_from([math.inf, 250.0]),
    )
    return st.one_of(fixed, fixed, st.none())


@st.composite
def upstreams(draw: st.DrawFn) -> tuple[UpstreamSettings, ...]:
    """One to three upstreams; the first serves every model, so that no request is impossible."""
    served = [(), *draw(st.lists(st.sampled_from([(), ("m",), ("m", "n")]), max_size=2))]
    return tuple(
        UpstreamSettings(f"u{i}", models, draw(capacities()), draw(limits()))
        for i, models in enumerate(served)
    )


@st.composite
def settings(draw: st.DrawFn) -> Settings:
    """Any settings that are allowed."""
    return Settings(
        draw(classes()),
        draw(upstreams()),
        draw(stacks()),
        queue_limit=draw(st.sampled_from([2, 30, 1000])),
        sticky=draw(st.booleans()),
        retry_share=draw(st.sampled_from([0.0, 0.1, 1.0])),
        max_attempts=draw(st.sampled_from([1, 2, 8])),
    )


class Code:
    """Choices packed into one number: one draw a request instead of nine, and 0 is the simplest."""

    SIZE = 2**40

    def __init__(self, number: int) -> None:
        """Start with all choices to be made."""
        self._rest = number

    def pick(self, *choices: _Choice) -> _Choice:
        """Return one of the choices."""
        self._rest, index = divmod(self._rest, len(choices))
        return choices[index]


def fate(number: int) -> Fate:
    """Return the end of an attempt; about half of them are bad."""
    code = Code(number)
    kind = code.pick("reply", "reply", "reply", "broken", "refused", "lost", *RefusalCause, "reply")
    return Fate(
        str(kind),
        code.pick(1.0, 0.0, 0.01, 0.5, 3.0, 40.0),
        code.pick(100, 100, 1, 2500, 0, None),
        code.pick(None, 0.0, 0.2, 5.0, 59.0, 500.0),
        code.pick(False, True),
        code.pick(0.5, 0.0, 0.999),
    )


def callers_of(numbers: list[int]) -> tuple[Caller, ...]:
    """Return requests that arrive one by one or in bursts, some impatient, some with a deadline."""
    found = []
    now = 0.0
    for id_, number in enumerate(numbers):
        code = Code(number)
        now += code.pick(0.0, 0.0, 0.05, 0.3, 1.0, 20.0)
        p50 = code.pick(*COSTS)
        request = Request(
            id_,
            code.pick(*CLASSES),
            now,
            TokenEstimate(p50, p50 * code.pick(1.0, 3.0), "test"),
            deadline=now + code.pick(math.inf, 30.0, 3.0, 0.1),
            expires_at=now + code.pick(math.inf, math.inf, 10.0, 0.5, 0.0),
            model=code.pick("", "m", "n"),
            prompt_tokens=code.pick(0, 10, 400),
            session=code.pick("", "s", "t"),
        )
        found.append(Caller(request, now + code.pick(math.inf, math.inf, 2.0, 0.4, 0.0)))
    return tuple(found)


def codes(most: int) -> st.SearchStrategy[list[int]]:
    """Up to so many packed choices."""
    return st.lists(st.integers(0, Code.SIZE - 1), max_size=most)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    """Any world at all."""
    return World(
        draw(settings()),
        callers_of(draw(codes(40))),
        tuple(fate(number) for number in draw(codes(60))),
        draw(st.sampled_from([math.inf, math.inf, 0.0, 2.0])),
    )
