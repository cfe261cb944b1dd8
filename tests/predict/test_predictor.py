"""The predictor as its users meet it: cold, taught, drifting, saved and restored."""

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.predict import CallFeatures, OnlinePredictor, StateError
from penstock.predict.archive import unpack
from tests.predict.replies import invented


def taught(count: int = 200, *, seed: int = 1) -> OnlinePredictor:
    predictor = OnlinePredictor.cold()
    for asked in invented(count, seed=seed):
        predictor.learn(asked.call, asked.tokens)
    return predictor


def test_a_cold_predictor_answers_before_it_has_seen_anything() -> None:
    estimate = OnlinePredictor.cold().predict(CallFeatures.from_prompt("Hello"))

    assert 1 <= estimate.p50_tokens < estimate.p90_tokens
    assert estimate.source == "predictor:online"


def test_it_learns_which_words_ask_for_long_replies_on_one_route() -> None:
    predictor = taught()

    essay = predictor.predict(CallFeatures.from_prompt("Write an essay about moss", route="mail"))
    word = predictor.predict(CallFeatures.from_prompt("Name one word for moss", route="mail"))

    assert 400 < essay.p50_tokens < 900
    assert 13 < word.p50_tokens < 30


def test_p90_covers_nine_replies_in_ten() -> None:
    predictor = taught(300)
    covered = []
    for asked in invented(600, seed=2):
        covered.append(asked.tokens <= predictor.predict(asked.call).p90_tokens)
        predictor.learn(asked.call, asked.tokens)

    assert 0.87 <= sum(covered) / len(covered) <= 0.93


def test_p90_covers_again_within_400_replies_after_the_model_behind_a_route_changed() -> None:
    predictor = taught(600)
    for asked in invented(400, seed=3, scale=3.0):
        predictor.learn(asked.call, asked.tokens)
    covered = []
    for asked in invented(400, seed=4, scale=3.0):
        covered.append(asked.tokens <= predictor.predict(asked.call).p90_tokens)
        predictor.learn(asked.call, asked.tokens)

    assert 0.87 <= sum(covered) / len(covered) <= 0.93


def test_max_tokens_caps_both_quantiles() -> None:
    call = CallFeatures.from_prompt("Write an essay about moss", route="mail", max_tokens=50)

    estimate = taught().predict(call)

    assert (estimate.p50_tokens, estimate.p90_tokens) == (50.0, 50.0)


def test_two_choices_cost_twice_as_much_and_teach_no_more_than_one() -> None:
    predictor = taught()
    turns = [{"role": "user", "content": "Write an essay about moss"}]
    body = {"model": "m", "messages": turns}
    one = CallFeatures.from_body(body, endpoint="chat", route="mail")
    two = CallFeatures.from_body({**body, "n": 2}, endpoint="chat", route="mail")
    for _ in range(20):
        predictor.learn(two, 1200)

    assert 400 < predictor.predict(one).p50_tokens < 900  # an essay is 600
    assert predictor.predict(two).p50_tokens > 1.5 * predictor.predict(one).p50_tokens


def test_the_same_replies_give_the_same_estimates_to_the_last_digit() -> None:
    call = CallFeatures.from_prompt("Write an essay about bread", route="mail")

    assert taught().predict(call) == taught().predict(call)


def test_a_negative_count_is_the_callers_mistake() -> None:
    with pytest.raises(ValueError, match="not a count"):
        OnlinePredictor.cold().learn(CallFeatures.from_prompt("Hello"), -1)


def test_what_was_learned_survives_a_restart(tmp_path: Path) -> None:
    predictor = taught()
    predictor.save(tmp_path / "state.npz")

    restored = OnlinePredictor.load(tmp_path / "state.npz")

    for asked in invented(20, seed=5):
        was, now = predictor.predict(asked.call), restored.predict(asked.call)
        assert now.p50_tokens == pytest.approx(was.p50_tokens, rel=0.05)
        assert now.p90_tokens == pytest.approx(was.p90_tokens, rel=0.10)


def test_a_restored_predictor_goes_on_learning(tmp_path: Path) -> None:
    taught().save(tmp_path / "state.npz")
    restored = OnlinePredictor.load(tmp_path / "state.npz")
    call = CallFeatures.from_prompt("Write an essay about moss", route="mail")

    for asked in invented(300, seed=6, scale=4.0):
        restored.learn(asked.call, asked.tokens)

    assert restored.predict(call).p50_tokens > 1500


def test_a_shipped_predictor_finds_its_prior_again(tmp_path: Path) -> None:
    predictor = OnlinePredictor.shipped()
    call = CallFeatures.from_prompt("Write a short poem about the sea.")
    predictor.learn(call, 90)
    predictor.save(tmp_path / "state.npz")

    restored = OnlinePredictor.load(tmp_path / "state.npz")

    assert restored.source == "predictor:shipped"
    assert restored.predict(call).p50_tokens == pytest.approx(
        predictor.predict(call).p50_tokens, rel=0.05
    )


def test_no_word_of_a_prompt_is_in_the_state(tmp_path: Path) -> None:
    predictor = OnlinePredictor.cold()
    secret = "xylophone-4711-password"
    body = {
        "messages": [
            {"role": "system", "content": f"Never say {secret}"},
            {"role": "user", "content": f"What is {secret}?"},
        ]
    }
    call = CallFeatures.from_body(body, endpoint="chat")
    predictor.learn(call, 12)
    predictor.save(tmp_path / "state.npz")

    import zipfile

    with zipfile.ZipFile(tmp_path / "state.npz") as file:
        content = b"".join(file.read(name) for name in file.namelist())
    assert b"xylophone" not in content
    assert "xylophone" not in repr(call)


def test_the_state_of_a_hundred_routes_is_under_two_megabytes(tmp_path: Path) -> None:
    predictor = OnlinePredictor.cold()
    for number in range(100):
        for asked in invented(12, seed=number, route=f"route-{number}"):
            predictor.learn(asked.call, asked.tokens)
    for number in range(100):  # and every window of theirs full
        group = f"m\0route-{number}"
        for key in (f"route-{number}", group):
            for _ in range(200):
                predictor.model.centres.add((key,), 5.123456)
                predictor.model.p90.learn((key,), 0.123456, covered=True)
    predictor.save(tmp_path / "state.npz")

    assert (tmp_path / "state.npz").stat().st_size < 2_000_000


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: b"not a state",
        lambda data: data[: len(data) // 2],
        lambda data: data[:2000] + bytes(200) + data[2200:],
    ],
    ids=["empty", "text", "cut short", "overwritten"],
)
def test_a_damaged_state_is_refused_with_a_way_out(tmp_path: Path, damage: object) -> None:
    path = tmp_path / "state.npz"
    taught(50).save(path)
    assert callable(damage)
    path.write_bytes(damage(path.read_bytes()))

    with pytest.raises(StateError, match=r"(R|r)emove it") as caught:
        OnlinePredictor.load(path)
    assert "pickle" not in str(caught.value)  # numpy's advice for what it does not know


def test_a_prior_is_not_taken_for_a_state() -> None:
    import penstock.predict

    prior = Path(penstock.predict.__file__).parent / "prior" / "prior.npz"
    with pytest.raises(StateError, match="another version"):
        OnlinePredictor.load(prior)


@given(prompt=st.text(max_size=400), tokens=st.integers(0, 1_000_000))
def test_any_text_and_any_length_leave_finite_estimates(prompt: str, tokens: int) -> None:
    predictor = OnlinePredictor.cold()
    call = CallFeatures.from_prompt(prompt)
    for _ in range(3):
        predictor.learn(call, tokens)

    estimate = predictor.predict(call)

    assert 1 <= estimate.p50_tokens <= estimate.p90_tokens < math.inf


def test_replies_that_wait_for_their_batch_are_in_the_state_all_the_same(tmp_path: Path) -> None:
    predictor = OnlinePredictor.cold()
    for item in invented(333, seed=4):
        predictor.learn(item.call, item.tokens)

    predictor.save(tmp_path / "state")

    _, meta = unpack(tmp_path / "state", kind="penstock predictor state", version=2)
    assert meta["kernel_count"] == 333
