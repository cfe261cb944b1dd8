"""What a frozen predictor keeps of its training: all of the replay, not where it ended."""

import math

import numpy as np

from penstock.predict.features.call import CallFeatures
from penstock.predict.online.groups import fair_sample
from penstock.predict.online.model import TRAINED, OnlineModel
from penstock.predict.online.predictor import OnlinePredictor
from penstock.predict.train.datasets import lesson
from penstock.predict.train.shared import learner
from penstock.predict.train.training import PriorReplay, train_predictor
from tests.predict.replies import invented


class _Knows:
    """A prior that knows what invented replies are like."""

    def __init__(self) -> None:
        self.of: dict[int, float] = {}

    def log_tokens(self, call: CallFeatures) -> float:
        return self.of[id(call)]


def test_a_bad_end_of_the_replay_does_not_discredit_a_prior_that_was_right_all_along() -> None:
    asked = invented(500, seed=1)
    prior = _Knows()
    prior.of = {id(a.call): math.log(600 if "essay" in a.prompt else 20) for a in asked}
    model, replay = OnlineModel(prior, TRAINED), PriorReplay()
    for number, item in enumerate(asked):
        off = 3.0 if number >= 440 else 1.0  # the last replies are three times as long
        replay.note(model, item.call, math.log(item.tokens * off))
        model.learn(item.call, math.log(item.tokens * off))
    call = next(a.call for a in asked if "essay" in a.prompt)
    followed = OnlinePredictor(model, source="predictor:trained").predict(call).p50_tokens

    replay.settle(model)

    settled = OnlinePredictor(model, source="predictor:trained").predict(call)
    assert followed > 900
    assert 540 < settled.p50_tokens < 700
    assert settled.p90_tokens > settled.p50_tokens * 1.5


def test_p90_of_a_frozen_predictor_covers_nine_in_ten_of_prompts_kept_back() -> None:
    lessons = [lesson(a.call, a.tokens) for a in invented(700, seed=2)]
    predictor = train_predictor(lessons, learner("numpy", wider=None))

    kept_back = invented(500, seed=3)
    covered = [a.tokens <= predictor.predict(a.call).p90_tokens for a in kept_back]

    assert 0.86 < np.mean(covered) < 0.94


def test_a_fair_sample_is_spread_like_all_and_forgets_evenly() -> None:
    values = [float(n) for n in range(1000)]

    sample = fair_sample(values, 100)

    assert len(sample) == 100
    assert abs(float(np.median(sample)) - 499.5) < 10
    assert abs(float(np.median(sample[:50])) - float(np.median(sample[50:]))) < 250
    assert fair_sample(values[:7], 100) == values[:7]
