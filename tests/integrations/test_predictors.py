"""`predictor=` in process: whatever is given and whatever it does, calls go out."""

import logging
from pathlib import Path
from typing import Any

import pytest

from penstock import Penstock, TokenEstimate, Usage
from penstock.calls.spec import Prediction, RequestSpec
from penstock.core.events import Dispatch
from penstock.core.model import TrafficClass
from penstock.predict import CallFeatures, GuardedPredictor, OnlinePredictor
from tests.integrations.http.rig import Tape, penstock_with

TABLE = 256


class Mine:
    """A predictor by the gate's own protocol, which does what it is told."""

    def __init__(self, answer: object, lesson: Exception | None = None) -> None:
        self.answer = answer
        self.lesson = lesson

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        if isinstance(self.answer, Exception):
            raise self.answer
        if isinstance(self.answer, float):
            return Prediction(TokenEstimate(self.answer, 20), self._learn)
        return self.answer  # type: ignore[return-value]

    def _learn(self, output_tokens: int) -> None:
        if self.lesson is not None:
            raise self.lesson


def p50_of_a_call(predictor: Any, max_tokens: int | None = None) -> float:
    tape = Tape()
    gate = penstock_with(tape=tape, predictor=predictor).sync_gate()
    with gate.admit(prompt="hi", max_tokens=max_tokens) as slot:
        slot.settle(Usage(10))
    (dispatch,) = tape.of(Dispatch)
    return float(dispatch.request.estimate.p50_tokens)


@pytest.mark.parametrize("answer", [RuntimeError("boom"), float("nan"), None, (1, 2)])
def test_one_of_your_own_that_fails_is_stood_in_for_and_the_log_says_so_once(
    answer: object, caplog: pytest.LogCaptureFixture
) -> None:
    mine = Mine(answer)
    assert [p50_of_a_call(mine), p50_of_a_call(mine)] == [TABLE, TABLE]
    assert [r.levelno for r in caplog.records if r.name == "penstock.predict"] == [
        logging.WARNING
    ] * 2  # once for each of the two programs


def test_whatever_is_predicted_the_calls_cap_cuts_it() -> None:
    assert p50_of_a_call(Mine(10.0), max_tokens=5) == 5.0


def test_a_lesson_that_fails_does_not_reach_whoever_settles(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert p50_of_a_call(Mine(10.0, RuntimeError("boom"))) == 10.0
    assert "failed to learn (RuntimeError: boom)" in caplog.text


class Fixed:
    """One by the protocol of `penstock.predict`."""

    def predict(self, call: CallFeatures) -> TokenEstimate:
        return TokenEstimate(33, 44, "fixed")

    def learn(self, call: CallFeatures, output_tokens: int) -> None:
        """Learn nothing."""


def test_a_predictor_of_penstock_predict_may_be_handed_over_as_it_is() -> None:
    assert p50_of_a_call(OnlinePredictor.cold()) != TABLE
    assert p50_of_a_call(GuardedPredictor(OnlinePredictor.cold())) != TABLE
    assert p50_of_a_call(GuardedPredictor(Fixed(), budget_s=30.0)) == 33


def test_what_a_program_learned_is_there_in_its_next_run(tmp_path: Path) -> None:
    first = GuardedPredictor(OnlinePredictor.shipped())
    gate = Penstock(predictor=first).sync_gate()
    for number in range(30):
        with gate.admit(prompt=f"Name colour {number}", route="colours") as slot:
            slot.settle(Usage(7))
    first.save(tmp_path / "lengths.npz")

    second = OnlinePredictor.load(tmp_path / "lengths.npz")

    call = CallFeatures.from_prompt("Name colour 99", route="colours")
    assert second.predict(call).p50_tokens == pytest.approx(7, rel=0.3)
    with pytest.raises(TypeError, match="Fixed is not saved"):
        GuardedPredictor(Fixed()).save(tmp_path / "no.npz")


def test_an_unknown_name_is_refused_with_those_there_are() -> None:
    with pytest.raises(ValueError, match="choose 'table', 'max_tokens' or 'learned'"):
        Penstock(predictor="magic")
