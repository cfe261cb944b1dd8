"""Lets the learning predictor answer, with a table behind it."""

from typing import TYPE_CHECKING

from penstock.calls.endpoint import Endpoint
from penstock.calls.estimate import Predictor, TablePredictor
from penstock.calls.spec import Prediction, RequestSpec
from penstock.core.model import TrafficClass

if TYPE_CHECKING:  # numpy is not needed before something is learnt
    from penstock.predict import CallFeatures, GuardedPredictor


class LearnedPredictor:
    """The predictor of `penstock.predict`, with a table's estimate behind it.

    Calls of which neither body nor prompt is known get the table's estimate, and so do those
    whose replies are no text.

    Attributes:
        guard: answers in time whatever its predictor does; None before it is loaded.
        table: what stands behind it.
        unread: bodies that it could make nothing of.

    """

    def __init__(
        self, guard: "GuardedPredictor | None" = None, table: Predictor | None = None
    ) -> None:
        """Ask `guard`; until there is one, and where it has nothing to say, `table`."""
        self.guard = guard
        self.table = table if table is not None else TablePredictor()
        self.unread = 0

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        """Return the learnt estimate; what the reply really had is learnt from."""
        prior = self.table.predict(spec, traffic_class)
        guard, endpoint = self.guard, spec.kind
        if guard is None or not endpoint.predicted:
            return prior
        try:
            call = _features(spec, endpoint)
        except Exception:  # noqa: BLE001 - counted; an odd body is the provider's to judge
            self.unread += 1
            return prior
        if call is None:
            return prior
        if spec.tokens is not None:
            # A lesson like any other, but no merit or fault of the predictor's.
            return Prediction(
                prior.estimate,
                lambda output_tokens: guard.learn(call, output_tokens),
                call.prompt_tokens,
                call.route,
            )
        estimate = guard.predict(call, fallback=prior.estimate)
        return Prediction(
            estimate,
            lambda output_tokens: guard.settle(call, estimate, output_tokens),
            call.prompt_tokens,
            call.route,
        )


def _features(spec: RequestSpec, endpoint: Endpoint) -> "CallFeatures | None":
    """Return what the predictor keeps of a call; None if there is nothing to read."""
    from penstock.predict import CallFeatures

    route = spec.route or None
    if spec.body is not None:
        return CallFeatures.from_body(spec.body, endpoint=endpoint.kind.value, route=route)
    if spec.prompt is None:
        return None
    return CallFeatures.from_prompt(
        spec.prompt, model=spec.model, route=route, max_tokens=spec.max_tokens
    )
