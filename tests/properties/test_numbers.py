"""Whatever numbers callers and providers state: all state stays finite, and honest callers go."""

import math
from dataclasses import fields, is_dataclass
from typing import Any

from hypothesis import settings as given_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from penstock.core.events import (
    Action,
    Arrived,
    Completed,
    Dispatch,
    Event,
    Failed,
    FirstToken,
    LimitsSeen,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.settings import Limits, Settings, UpstreamSettings
from penstock.errors import ProtocolError
from penstock.policies.registry import build_scheduler
from tests.core.story import request

SOON_S = 2_000.0
"""The longest believed pause (900 s), the wait for a limit's minute, and retries in between."""

anything: st.SearchStrategy[Any] = st.one_of(
    st.floats(),
    st.integers(-10, 1000),
    st.sampled_from(
        [
            10**400,
            10**160,
            10**18,
            -(10**400),
            1e-300,
            0.001,
            86_400_000.0,
            1e308,
            math.nan,
            math.inf,
        ]
    ),
)
perhaps: st.SearchStrategy[Any] = st.one_of(st.none(), anything)
ordinary = st.integers(1, 5000)


class Numbers(RuleBasedStateMachine):
    """A scheduler between callers and a provider that say anything."""

    def __init__(self) -> None:
        super().__init__()
        classes = (TrafficClass("interactive", weight=4.0), TrafficClass("batch"))
        here = UpstreamSettings(limits=Limits(tokens_per_min=1e6))
        self.penstock = build_scheduler(Settings(classes, (here,)))
        self.now = 0.0
        self.next_id = 0
        self.flying: dict[int, Request] = {}
        self.tell(Woke())

    def tell(self, event: Event) -> list[Action]:
        actions = self.penstock.handle(event, now=self.now)
        self.told_at = self.now
        for action in actions:
            if isinstance(action, Dispatch):
                assert action.request.id not in self.flying
                self.flying[action.request.id] = action.request
            elif isinstance(action, Reject):
                self.flying.pop(action.request.id, None)
                assert action.reason != "fault"
        assert not self.penstock.faults
        return actions

    @rule(gap_s=st.sampled_from([0.0, 0.01, 1.0, 30.0]))
    def time_passes(self, gap_s: float) -> None:
        until = self.now + gap_s
        while (at := self.penstock.next_wakeup()) is not None and at <= until:
            self.now = max(self.now, at)
            self.tell(Woke())
        self.now = until

    @rule(now=anything)
    def a_clock_shows_anything(self, now: Any) -> None:
        if not self.told_at <= now <= 1e11:  # within, it is a jump that can be true
            try:
                self.penstock.handle(Woke(), now=now)
            except ProtocolError:
                return
            raise AssertionError(f"{now!r} was taken for a time")

    @rule(traffic_class=st.sampled_from(["interactive", "batch"]), cost=ordinary, prompt=ordinary)
    def an_honest_caller(self, traffic_class: str, cost: int, prompt: int) -> None:
        self.next_id += 1
        self.tell(
            Arrived(
                request(
                    self.next_id, traffic_class, at=self.now, cost=float(cost), prompt_tokens=prompt
                )
            )
        )

    @rule(
        p50=anything,
        p90=anything,
        prompt=anything,
        deadline=anything,
        expires=anything,
        at=anything,
    )
    def a_caller_states_anything(
        self, p50: Any, p90: Any, prompt: Any, deadline: Any, expires: Any, at: Any
    ) -> None:
        self.next_id += 1
        try:
            odd = Request(
                self.next_id,
                "interactive",
                at,
                TokenEstimate(p50, p90),
                deadline=deadline,
                expires_at=expires,
                prompt_tokens=prompt,
            )
            self.tell(Arrived(odd))
        except ValueError as error:
            self.refused_in_words(error)

    @rule(deadline=anything, prompt=anything)
    def a_caller_states_some(self, deadline: Any, prompt: Any) -> None:
        self.next_id += 1
        odd = Request(
            self.next_id,
            "interactive",
            self.now,
            TokenEstimate(100.0, 1e9),
            deadline=deadline,
            prompt_tokens=prompt,
        )
        try:
            self.tell(Arrived(odd))
        except ProtocolError as error:
            self.refused_in_words(error)

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), output=perhaps, prompt=perhaps, cached=perhaps, counted=perhaps)
    def a_reply(self, data: Any, output: Any, prompt: Any, cached: Any, counted: Any) -> None:
        id_ = self.one(data)
        self.tell(FirstToken(id_))
        del self.flying[id_]
        self.tell(
            Completed(id_, output, prompt, cached_tokens=cached, counted_input_tokens=counted)
        )

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), cause=st.sampled_from(RefusalCause), wait_s=perhaps)
    def a_refusal(self, data: Any, cause: RefusalCause, wait_s: Any) -> None:
        id_ = self.one(data)
        del self.flying[id_]
        self.tell(Throttled(id_, cause, wait_s))

    @precondition(lambda self: self.flying)
    @rule(data=st.data(), retryable=st.booleans())
    def a_fault(self, data: Any, retryable: bool) -> None:
        id_ = self.one(data)
        del self.flying[id_]
        self.tell(Failed(id_, retryable=retryable))

    @rule(numbers=st.lists(perhaps, min_size=12, max_size=12))
    def limits_are_stated(self, numbers: list[Any]) -> None:
        self.tell(LimitsSeen("default", *numbers))

    def refused_in_words(self, error: Exception) -> None:
        assert 20 < len(str(error)) < 500

    def one(self, data: Any) -> int:
        return int(data.draw(st.sampled_from(sorted(self.flying))))

    @invariant()
    def all_is_finite(self) -> None:
        seen = self.penstock.snapshot()
        for lane in seen.lanes:
            assert 0.0 <= lane.severity <= 1.0
        for path, number in numbers_of(seen, "snapshot"):
            assert number == number, path
            assert math.isfinite(number) or path.endswith((".window", ".before", ".after")), path
            assert abs(number) <= 1e13, (path, number)

    def teardown(self) -> None:
        """An honest request of each class goes within the bound, once the provider is well."""
        wanted = {}
        for name in ("interactive", "batch"):
            self.next_id += 1
            wanted[self.next_id] = name
            honest = request(
                self.next_id, name, at=self.now, deadline=self.now + 9999.0, prompt_tokens=10
            )
            for action in self.tell(Arrived(honest)):
                assert not isinstance(action, Reject) or action.reason in ("quota", "rate", "shed")
                if isinstance(action, Reject) and action.request.id in wanted:
                    del wanted[action.request.id]  # refused in words, with a time to come back
                    assert action.retry_after_s is not None
                    assert action.retry_after_s <= 900.0
        until = self.now + SOON_S
        while wanted and self.now < until:
            for id_ in sorted(self.flying):
                del self.flying[id_]
                wanted.pop(id_, None)
                self.tell(Completed(id_, 100, 10))
            wakes_at = self.penstock.next_wakeup()
            if not self.flying:
                self.now = min(until, self.now + 1.0 if wakes_at is None else wakes_at)
                self.tell(Woke())
            else:
                self.now += 0.5
        assert not wanted


def numbers_of(value: Any, path: str) -> list[tuple[str, float]]:
    """Return every number in nested plain data, with where it stands."""
    if is_dataclass(value):
        return [
            each
            for field in fields(value)
            for each in numbers_of(getattr(value, field.name), f"{path}.{field.name}")
        ]
    if isinstance(value, dict):
        return [each for key in value for each in numbers_of(value[key], f"{path}.{key}")]
    if isinstance(value, tuple):
        return [each for item in value for each in numbers_of(item, path)]
    return [(path, value)] if isinstance(value, int | float) else []


TestNumbers = Numbers.TestCase
TestNumbers.settings = given_settings(max_examples=40, stateful_step_count=25, deadline=None)
