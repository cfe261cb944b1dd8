"""Traffic that a stranger found to break the predictor: kinds that share a route, one-off names,
two threads, numbers that are none."""

import math
import random
import sys
import threading
from pathlib import Path

import pytest

from penstock.core.model import TokenEstimate
from penstock.predict import CallFeatures, GuardedPredictor, OnlinePredictor, StateError
from penstock.predict.online.groups import KeptGroups

TABLE = TokenEstimate(256, 1024)


def asked(prompt: str, route: str | None = None) -> CallFeatures:
    return CallFeatures.from_prompt(prompt, model="m", route=route)


def off_by(predictor: OnlinePredictor, call: CallFeatures, tokens: int) -> float:
    return abs(math.log(predictor.predict(call).p50_tokens / tokens))


def test_long_replies_among_nine_times_as_many_of_one_token_are_learned() -> None:
    chance, predictor, errors = random.Random(3), OnlinePredictor.cold(), []
    for number in range(1500):
        item = chance.randrange(10**6)
        if chance.random() < 0.9:
            call, tokens = asked(f"Is this review positive? Answer yes or no: {item} great"), 1
        else:
            call = asked(f"Write an essay about topic {item} and explain in detail")
            tokens = round(math.exp(chance.gauss(6.3, 0.4)))
            if number > 750:
                errors.append(off_by(predictor, call, tokens))
        predictor.learn(call, tokens)

    assert math.exp(sorted(errors)[len(errors) // 2]) < 1.6  # the replies themselves vary by 1.3


def test_one_off_routes_do_not_push_out_those_in_use() -> None:
    chance, predictor, errors = random.Random(1), OnlinePredictor.cold(), []
    centres = [chance.gauss(5.0, 1.0) for _ in range(12)]
    for number in range(300):
        for _ in range(10):
            once = asked("hello there friend", f"once-{chance.randrange(10**9)}")
            predictor.learn(once, round(math.exp(chance.gauss(5.0, 1.0))))
        route = chance.randrange(len(centres))
        call = asked(f"please do the task for item {number}", f"route-{route}")
        tokens = round(math.exp(chance.gauss(centres[route], 0.2)))
        if number > 200:
            errors.append(off_by(predictor, call, tokens))
        predictor.learn(call, tokens)

    assert math.exp(sorted(errors)[len(errors) // 2]) < 1.4


def test_what_is_used_again_is_kept_and_what_is_not_goes_first() -> None:
    groups: KeptGroups[list[int]] = KeptGroups(limit=4)
    groups.use("kept", list).append(1)
    groups.use("kept", list).append(2)
    for number in range(100):
        groups.use(f"once-{number}", list)

    assert groups.get("kept") == [1, 2]
    assert groups.get("once-98") is None
    assert "once-99" in groups
    assert len(groups) == 2
    for number in range(4):
        groups.put(f"used-{number}", [])
    assert "kept" not in groups
    assert [name for name, _ in groups.items()] == ["once-99", *(f"used-{n}" for n in range(4))]


@pytest.mark.parametrize("start", ["cold", "shipped"])
def test_a_new_kind_after_replies_all_alike_has_no_p90_in_the_hundred_thousands(start: str) -> None:
    predictor: OnlinePredictor = getattr(OnlinePredictor, start)()
    for number in range(300):
        predictor.learn(asked(f"ping {number}", "health"), 3)
    chance, covered = random.Random(1), 0
    for number in range(40):
        call = asked(f"Write a long essay about topic {number}", "essay")
        tokens = round(math.exp(chance.gauss(6.3, 0.4)))
        p90 = predictor.predict(call).p90_tokens
        covered += tokens <= p90
        assert p90 < 10_000
        predictor.learn(call, tokens)

    assert covered >= 34


def test_threads_that_share_a_predictor_learn_every_reply_and_break_nothing() -> None:
    guard = GuardedPredictor(OnlinePredictor.shipped(), budget_s=30.0)

    def traffic(name: str, tokens: int) -> None:
        for number in range(150):
            call = asked(f"{name} asks for number {number}", name)
            estimate = guard.predict(call, fallback=TABLE)
            guard.settle(call, estimate, tokens)
            guard.stats.figures()

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)  # change threads a hundred times as often as usual
    try:
        threads = [
            threading.Thread(target=traffic, args=(f"t{n}", 100 * (n + 1))) for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)

    assert guard.counts.learned == 600
    assert (guard.counts.learn_failures, guard.counts.last_error) == (0, "")
    for n in range(4):
        p50 = guard.predict(asked("once more", f"t{n}"), fallback=TABLE).p50_tokens
        assert p50 == pytest.approx(100 * (n + 1), rel=0.3)


@pytest.mark.parametrize("tokens", [-1, math.nan, math.inf])
def test_a_count_that_is_none_teaches_nothing(tokens: float) -> None:
    predictor = OnlinePredictor.cold()
    with pytest.raises(ValueError, match="is not a count"):
        predictor.learn(asked("hello"), tokens)  # type: ignore[arg-type]

    assert predictor.model.replies == 0


def test_a_predictor_whose_figures_are_no_numbers_falls_back() -> None:
    class Lost:
        def log_tokens(self, call: CallFeatures) -> float:
            return math.nan

    guard = GuardedPredictor(OnlinePredictor.from_prior(Lost()), budget_s=30.0)

    assert guard.predict(asked("hello"), fallback=TABLE) == TABLE
    assert guard.counts.fallbacks == {"invalid": 1}


def test_a_state_with_any_byte_damaged_is_refused_or_read(tmp_path: Path) -> None:
    predictor, file = OnlinePredictor.cold(), tmp_path / "state.npz"
    for number in range(30):
        predictor.learn(asked(f"number {number}", "r"), 20 + number)
    predictor.save(file)
    whole, chance, refused = file.read_bytes(), random.Random(0), 0
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(chance.randrange(1, 4)):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        file.write_bytes(damaged)
        try:
            OnlinePredictor.load(file)
        except StateError:
            refused += 1

    assert refused > 200
