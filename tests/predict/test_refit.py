"""A model refitted to recent traffic is heard where it is better, and nowhere else."""

from collections.abc import Callable, Sequence

from penstock.predict import CallFeatures, Predictor
from penstock.predict.lessons import Lesson
from penstock.predict.prior import LogTokens
from penstock.predict.refit import RefittingPredictor
from tests.predict.replies import Asked, invented


class Says:
    """A fitted model that says what it is asked to."""

    def __init__(self, log_tokens: Callable[[CallFeatures], float]) -> None:
        self.log_tokens = log_tokens


def at_once(work: Callable[[], None]) -> None:
    work()


def refitting(fit: Callable[[Sequence[Lesson]], LogTokens]) -> RefittingPredictor:
    return RefittingPredictor(Predictor.cold(), fit, every=100, start=at_once)


def error(predictor: RefittingPredictor, stream: Sequence[Asked]) -> float:
    total = 0.0
    for asked in stream:
        p50 = predictor.predict(asked.call).p50_tokens
        total += max(p50 / asked.tokens, asked.tokens / p50)
        predictor.learn(asked.call, asked.tokens)
    return total / len(stream)


def test_a_refitted_model_that_knows_better_takes_over() -> None:
    import math

    stream = invented(400, seed=9)
    truth = {id(asked.call): math.log(asked.tokens) for asked in stream}
    online = error(refitting(lambda _: Says(lambda _: 9.0)), stream)
    knows = refitting(lambda _: Says(lambda call: truth[id(call)]))

    assert error(knows, stream) < 0.95 * online
    assert knows.refits == 3


def test_a_refitted_model_that_is_wrong_does_no_harm() -> None:
    stream = invented(400, seed=9)
    plain = RefittingPredictor(Predictor.cold(), lambda _: Says(lambda _: 9.0), every=10**9)
    wrong = refitting(lambda _: Says(lambda _: 9.0))

    assert error(wrong, stream) < 1.05 * error(plain, stream)


def test_a_refit_that_fails_leaves_the_online_model_alone() -> None:
    def broken(lessons: Sequence[Lesson]) -> LogTokens:
        raise MemoryError(f"{len(lessons)} lessons are too many")

    predictor = refitting(broken)

    assert error(predictor, invented(250, seed=3)) < 1.6
    assert predictor.refits == 0
    assert predictor.last_error == "MemoryError: 200 lessons are too many"
