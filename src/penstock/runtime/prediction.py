"""Lets the learning predictor answer for the gate."""

from penstock.core.model import TrafficClass
from penstock.predict import CallFeatures, GuardedPredictor
from penstock.runtime.spec import Prediction, RequestSpec, TablePredictor


class LearnedPredictor:
    """The predictor of `penstock.predict`, with the class's table behind it.

    Calls of which neither body nor prompt is known get the table's estimate, and so do embeddings,
    which write nothing.
    """

    def __init__(self, guard: GuardedPredictor) -> None:
        """Ask `guard`, which answers in time whatever its predictor does."""
        self._guard = guard
        self._table = TablePredictor()

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        """Return the learnt estimate; what the reply really had is learnt from."""
        fallback = self._table.predict(spec, traffic_class)
        route = spec.route or None
        if spec.endpoint == "embeddings":
            return fallback
        if spec.body is not None:
            call = CallFeatures.from_body(spec.body, endpoint=spec.endpoint or "chat", route=route)
        elif spec.prompt is not None:
            call = CallFeatures.from_prompt(
                spec.prompt, model=spec.model, route=route, max_tokens=spec.max_tokens
            )
        else:
            return fallback
        if spec.tokens is not None:
            # A lesson like any other, but no merit or fault of the predictor's.
            return Prediction(
                fallback.estimate,
                lambda output_tokens: self._guard.learn(call, output_tokens),
                call.prompt_tokens,
                call.route,
            )
        estimate = self._guard.predict(call, fallback=fallback.estimate)
        return Prediction(
            estimate,
            lambda output_tokens: self._guard.settle(call, estimate, output_tokens),
            call.prompt_tokens,
            call.route,
        )
