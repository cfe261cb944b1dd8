"""Whatever the predictor does, the request goes on with an estimate."""

import threading

import pytest

from penstock.core.model import TokenEstimate
from penstock.predict import (
    CallFeatures,
    GuardedPredictor,
    OnlinePredictor,
    PredictorStats,
)

TABLE = TokenEstimate(256, 1024)
CALL = CallFeatures.from_prompt("Hello", route="r")


class Fixed:
    """Answers the same, or raises it."""

    def __init__(self, answer: object) -> None:
        self.answer = answer

    def predict(self, call: CallFeatures) -> TokenEstimate:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer  # type: ignore[return-value]

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        if isinstance(self.answer, Exception):
            raise self.answer


class Stuck:
    """Does not answer until it is let go."""

    def __init__(self) -> None:
        self.free, self.begun = threading.Event(), threading.Event()
        self.calls = 0

    def predict(self, call: CallFeatures) -> TokenEstimate:
        self.calls += 1
        self.begun.set()
        self.free.wait(30)
        return TokenEstimate(7, 9, "stuck")

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        """Learn nothing."""


def test_an_estimate_in_time_is_passed_on() -> None:
    guard = GuardedPredictor(Fixed(TokenEstimate(10, 20, "mine")), budget_s=30)

    assert guard.predict(CALL, fallback=TABLE) == TokenEstimate(10, 20, "mine")
    assert guard.counts.predicted == 1


@pytest.mark.parametrize(
    ("answer", "cause"),
    [
        (RuntimeError("broken"), "raised"),
        (ValueError("p50=nan is no estimate"), "invalid"),
        (None, "invalid"),
        ((10.0, 20.0), "invalid"),
    ],
)
def test_failures_fall_back_and_are_counted_by_cause(answer: object, cause: str) -> None:
    guard = GuardedPredictor(Fixed(answer), budget_s=30)

    assert guard.predict(CALL, fallback=TABLE) == TABLE
    assert guard.counts.fallbacks == {cause: 1}


def test_a_stuck_predictor_costs_one_budget_and_then_nothing_until_it_is_back() -> None:
    stuck = Stuck()
    guard = GuardedPredictor(stuck, budget_s=0.004)

    for _ in range(50):
        assert guard.predict(CALL, fallback=TABLE) == TABLE
    assert guard.counts.fallbacks == {"slow": 50}
    assert stuck.begun.wait(30)  # its thread may come to it after all fifty
    assert stuck.calls == 1

    stuck.free.set()
    assert guard.flush(timeout_s=30)
    patient = [guard.predict(CALL, fallback=TABLE).source for _ in range(200)]
    assert "stuck" in patient


def test_penstocks_own_predictor_is_rested_after_three_slow_answers_in_a_row() -> None:
    ticks = iter(range(1000))  # every look at the clock is 0.3 s later
    guard = GuardedPredictor(OnlinePredictor.cold(), clock=lambda: 0.3 * next(ticks))

    sources = [guard.predict(CALL, fallback=TABLE).source for _ in range(7)]

    assert sources == ["predictor:online"] * 3 + ["table"] * 3 + ["predictor:online"]
    assert guard.counts.fallbacks == {"slow": 3}


def test_a_predictor_that_no_longer_learns_is_out_of_date() -> None:
    now = [0.0]
    guard = GuardedPredictor(
        Fixed(RuntimeError("disk")), threaded=False, stale_after_s=60, clock=lambda: now[0]
    )
    guard.learn(CALL, 10)
    now[0] = 61.0

    guard.predict(CALL, fallback=TABLE)

    assert guard.counts.fallbacks == {"stale": 1}
    assert guard.counts.learn_failures == 1
    assert guard.counts.last_error == "RuntimeError: disk"


def test_without_a_predictor_every_estimate_is_the_table() -> None:
    guard = GuardedPredictor(None)

    assert guard.predict(CALL, fallback=TABLE) == TABLE
    guard.settle(CALL, TABLE, 100)
    assert guard.counts.fallbacks == {"off": 1}


def test_the_fallback_is_capped_by_max_tokens() -> None:
    call = CallFeatures.from_prompt("Hello", max_tokens=100)

    assert GuardedPredictor(None).predict(call, fallback=TABLE) == TokenEstimate(100, 100)
    assert TABLE.capped(512) == TokenEstimate(256, 512)


def test_what_a_guard_learns_it_knows_after_a_flush() -> None:
    guard = GuardedPredictor(OnlinePredictor.cold(), threaded=True, budget_s=30)
    for _ in range(30):
        guard.learn(CALL, 33)

    assert guard.flush(timeout_s=30)
    assert guard.predict(CALL, fallback=TABLE).p50_tokens == pytest.approx(33, rel=0.1)
    assert guard.counts.learned == 30
    guard.close()


def test_fallback_rate_and_hits_are_kept_per_route_with_a_bound_on_routes() -> None:
    guard = GuardedPredictor(None)
    for number in range(100):
        call = CallFeatures.from_prompt("Hello", route=f"r{number}")
        guard.settle(call, guard.predict(call, fallback=TABLE), 200 if number % 2 else 2000)

    figures = guard.stats.figures()

    assert len(figures) <= 23
    everything = figures["(all)"]
    assert everything.fallback_rate == 1.0
    assert everything.bucket_accuracy == 0.5
    assert everything.p90_coverage == 0.5
    assert everything.pair_ranking == 0.5
    assert figures["(other)"].replies > 50


def test_a_routes_place_goes_to_a_newcomer_only_after_it_had_no_traffic_for_long() -> None:
    stats = PredictorStats(routes_max=2, idle_after=10)
    for route in ("daily", "once", "new"):
        stats.predicted(route, fell_back=False)
    assert set(stats.figures()) == {"(all)", "(other)", "daily", "once"}

    for _ in range(10):
        stats.predicted("daily", fell_back=False)
    stats.predicted("new", fell_back=False)
    assert set(stats.figures()) == {"(all)", "(other)", "daily", "new"}
