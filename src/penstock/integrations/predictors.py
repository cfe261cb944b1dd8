"""What `predictor=` may be, made safe: a call goes out whatever its predictor does."""

import logging
from typing import TYPE_CHECKING, Any

from penstock.calls.spec import (
    Prediction,
    Predictor,
    RequestSpec,
    TablePredictor,
    plain_count,
    plain_name,
)
from penstock.core.model import TokenEstimate, TrafficClass

if TYPE_CHECKING:  # numpy is not needed where nothing is learnt
    from penstock.predict.online.guard import GuardedPredictor, TokenPredictor

logger = logging.getLogger("penstock.predict")


def predictor_of(wanted: "Predictor | TokenPredictor | GuardedPredictor | str") -> Predictor | None:
    """Return the predictor that a program asks for; None for the class's table.

    One of `penstock.predict` (anything that has `learn`) is guarded: its estimate is there within
    4 ms or the class's table stands in.

    Raises:
        ValueError: no predictor has that name.

    """
    if wanted == "table":
        return None
    if wanted == "max_tokens":
        return TablePredictor(trusts_cap=True)
    if isinstance(wanted, str) and wanted != "learned":
        raise ValueError(
            f"predictor={wanted!r} is not known: choose 'table', 'max_tokens' or 'learned'"
        )
    if isinstance(wanted, str) or hasattr(wanted, "learn"):
        wanted = _learning(wanted)
    return SafePredictor(wanted)


def _learning(wanted: Any) -> Predictor:
    from penstock.predict import GuardedPredictor
    from penstock.predict import OnlinePredictor as Learner
    from penstock.runtime.prediction import LearnedPredictor

    if wanted == "learned":
        wanted = Learner.shipped()
    return LearnedPredictor(
        wanted if isinstance(wanted, GuardedPredictor) else GuardedPredictor(wanted)
    )


class SafePredictor:
    """Asks a predictor that may fail; the class's table stands in, and the log says so once."""

    def __init__(self, predictor: Predictor) -> None:
        """Ask `predictor`, in the caller's thread: it must not wait for anything."""
        self._predictor = predictor
        self._table = TablePredictor()
        self._told = False

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        """Return the predictor's word, or the table's if it has none."""
        try:
            return _checked(self._predictor.predict(spec, traffic_class))
        except Exception as error:  # noqa: BLE001  whatever it is, the call goes out
            self._failed(error)
            return self._table.predict(spec, traffic_class)

    def _failed(self, error: Exception) -> None:
        if not self._told:
            self._told = True
            logger.warning(
                "predictor %s failed (%s: %s); the class's estimate stands in, and further "
                "failures are not logged",
                type(self._predictor).__name__, type(error).__name__, error,
            )  # fmt: skip


def _checked(prediction: Any) -> Prediction:
    """Return a program's prediction with a number and a name of Python's own in it.

    Raises:
        TypeError: it is none.
        ValueError: its numbers are none, or its route is too long.

    """
    if not (isinstance(prediction, Prediction) and isinstance(prediction.estimate, TokenEstimate)):
        raise TypeError(f"{type(prediction).__name__} is no Prediction with a TokenEstimate")
    prediction.prompt_tokens = plain_count("prompt_tokens", prediction.prompt_tokens)
    prediction.route = plain_name("route", prediction.route)
    return prediction
