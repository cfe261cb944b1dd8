"""Lets the learning predictor answer, with a table behind it."""

import math
from typing import TYPE_CHECKING

from penstock.calls.endpoint import Endpoint
from penstock.calls.spec import Prediction, Predictor, RequestSpec, TablePredictor, times
from penstock.core.model import Latest, TrafficClass

if TYPE_CHECKING:  # numpy is not needed before something is learnt
    from penstock.predict import CallFeatures, GuardedPredictor

KINDS_KEPT = 1000
"""As many as the predictor itself keeps of used ones."""


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
        self._per_estimated: Latest[float] = Latest(KINDS_KEPT)
        """By how much the predictor finds prompts of a kind larger than the estimate by bytes."""

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        """Return the learnt estimate; what the reply really had is learnt from."""
        guard, endpoint = self.guard, spec.endpoint_row
        if guard is None or not endpoint.predicted:
            return self.table.predict(spec, traffic_class)
        try:
            kind = _kind(spec, endpoint)
            if kind is None:
                return self.table.predict(spec, traffic_class)
            facts, name = spec.read(), "\0".join(kind)
            if _decides_nothing(spec, traffic_class):
                scale = self._per_estimated.get(name)
                usual = None if scale is None else guard.usual(name)
                if usual is not None and scale is not None:
                    size = round(scale * facts.prompt_tokens)
                    return Prediction(times(usual, facts.replies), None, size, kind[1])
            call = _features(spec, endpoint, kind[1])
        except Exception:  # noqa: BLE001 - counted; an odd body is the provider's to judge
            self.unread += 1
            return self.table.predict(spec, traffic_class)
        prior = self.table.predict(spec, traffic_class)
        self._per_estimated.put(name, call.prompt_tokens / max(1, facts.prompt_tokens))
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


def _decides_nothing(spec: RequestSpec, traffic_class: TrafficClass) -> bool:
    """Return whether a call goes out at once and is held to no time, however long its reply is."""
    timed = spec.deadline_s is not None or traffic_class.deadline_s < math.inf
    return spec.idle and not timed and spec.tokens is None


def _kind(spec: RequestSpec, endpoint: Endpoint) -> tuple[str, str] | None:
    """Return the model and the route of a call; None if there is nothing to read."""
    from penstock.predict import kind_of

    if spec.body is not None:
        return kind_of(spec.body, endpoint=endpoint.kind.value, route=spec.route or None)
    return None if spec.prompt is None else (spec.model, spec.route or "~chat")


def _features(spec: RequestSpec, endpoint: Endpoint, route: str) -> "CallFeatures":
    """Return what the predictor keeps of a call of that route."""
    from penstock.predict import CallFeatures

    if spec.body is not None:
        return CallFeatures.from_body(spec.body, endpoint=endpoint.kind.value, route=route)
    return CallFeatures.from_prompt(
        spec.prompt or "", model=spec.model, route=route, max_tokens=spec.max_tokens
    )
