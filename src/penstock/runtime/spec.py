"""What a caller says about a request, and how it becomes the scheduler's `Request`."""

import itertools
import math
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock.calls.stated import capped, stated
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.runtime.telemetry import Trace, Tracer

_OPERATIONS = {
    "chat": "chat",
    "messages": "chat",
    "responses": "chat",
    "completions": "text_completion",
    "embeddings": "embeddings",
}
"""What the GenAI semantic conventions call the endpoints."""


@dataclass(slots=True)  # not frozen: that makes each call 3 us dearer; nobody changes one
class RequestSpec:
    """A request in the caller's words; everything is optional.

    Attributes:
        traffic_class: the class by name; the gate's default if None.
        deadline_s: seconds from now until the last token is wanted; the class's if None.
        expires_in_s: seconds from now after which it is refused if still waiting.
        tokens: how many output tokens the reply will have, where the caller knows better than a
            prediction: a count, a median and a 90th percentile, or an estimate.
        max_tokens: the most that the reply may have; caps what is stated or predicted.
        prompt_tokens: input size, if known.
        tenant, model, session: as in `core.model.Request`.
        prompt: the text, for the predictor only; never kept, logged or shown.
        body: the parsed API request, for the predictor only; never kept, logged or shown.
        route: a name for this kind of call (a prompt template, say), for the predictor and the log.
        endpoint: "chat", "completions", "responses", "embeddings" or "messages", for the
            predictor and the trace.
        vendor: "openai" or "anthropic", for the trace.

    """

    traffic_class: str | None = None
    deadline_s: float | None = None
    expires_in_s: float | None = None
    tokens: TokenEstimate | float | tuple[float, float] | None = None
    max_tokens: int | None = None
    prompt_tokens: int | None = None
    tenant: str = ""
    model: str = ""
    session: str = ""
    prompt: str | None = field(default=None, repr=False)
    body: Mapping[str, Any] | None = field(default=None, repr=False)
    route: str = ""
    endpoint: str = ""
    vendor: str = ""


@dataclass(slots=True)
class Prediction:
    """An estimate, and who wants to hear how long the reply really was.

    Attributes:
        estimate: of the output tokens.
        learn: told the real output tokens; None if nobody cares.
        prompt_tokens: size of the prompt, where the predictor read it; 0 if unknown.
        route: the kind of call, where the predictor found one; no text of the prompt.

    """

    estimate: TokenEstimate
    learn: Callable[[int], None] | None = None
    prompt_tokens: int = 0
    route: str = ""


class Predictor(Protocol):
    """Predicts output tokens at submission and learns from every reply.

    Neither may raise, wait or take longer than a few milliseconds.
    """

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        """Return the estimate for a request of that class; it keeps nothing of the spec's text.

        Where `spec.tokens` states the length, the estimate is not used, but `learn` is.
        """
        ...


class TablePredictor:
    """The class's table, capped by `max_tokens`: what is known before anything was learnt."""

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        """Return the class's estimate, no quantile above `max_tokens`."""
        table = traffic_class.estimate
        cap = spec.max_tokens
        if cap is None or cap >= table.p90_tokens:
            return Prediction(table)
        cap = max(cap, 1)
        return Prediction(TokenEstimate(min(table.p50_tokens, cap), cap, "max_tokens"))


MEDIAN_OF_TRUSTED_CAP = 0.6
"""Callers who set `max_tokens` to what they need leave some room (ours, version 1)."""


class MaxTokensPredictor:
    """Takes `max_tokens` for what the caller expects; without one, the class's table."""

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        """Return 0.6 of `max_tokens` and all of it as the quantiles."""
        cap = spec.max_tokens
        if cap is None:
            return Prediction(traffic_class.estimate)
        p50 = max(1.0, cap * MEDIAN_OF_TRUSTED_CAP)
        return Prediction(TokenEstimate(p50, max(p50, cap), "max_tokens"))


class Intake:
    """Turns specs into requests: class, estimate, deadline, sequence number.

    One intake serves all gates of a driver, so that ids are unique. Its counter may be used
    from any thread.

    Args:
        classes: the scheduler's classes.
        default_class: for specs that name none; the first of `classes` if None.
        predictor: the class's table if None.
        ttl_s: how long a request may wait if its spec does not say.
        run: names this process in public ids; six random characters if None.
        tracer: traces each request; nobody does if None.

    Raises:
        ValueError: the default class is not among the classes.

    """

    def __init__(
        self,
        classes: tuple[TrafficClass, ...],
        *,
        default_class: str | None = None,
        predictor: Predictor | None = None,
        ttl_s: float = math.inf,
        run: str | None = None,
        tracer: Tracer | None = None,
    ) -> None:
        """Remember the classes by name."""
        self.classes = {each.name: each for each in classes}
        self.default_class = default_class if default_class is not None else classes[0].name
        self._class_named(self.default_class)
        self.predictor = predictor if predictor is not None else TablePredictor()
        self.ttl_s = ttl_s
        self.run = run if run is not None else secrets.token_hex(3)
        self._ids = itertools.count(1)
        self.tracer = tracer

    def request(
        self, spec: RequestSpec, *, now: float
    ) -> tuple[Request, Callable[[int], None] | None]:
        """Return the request as the scheduler sees it, and who learns from its real length.

        Raises:
            ValueError: an unknown class, a time that is not a positive number, or tokens that are
                no length of a reply.

        """
        traffic_class = self._class_named(spec.traffic_class or self.default_class)
        deadline_s = traffic_class.deadline_s if spec.deadline_s is None else spec.deadline_s
        expires_in_s = self.ttl_s if spec.expires_in_s is None else spec.expires_in_s
        if not (deadline_s > 0 and expires_in_s > 0):
            name, value = (
                ("expires_in_s", expires_in_s) if deadline_s > 0 else ("deadline_s", deadline_s)
            )
            raise ValueError(
                f"{name}={value!r} is not a time to come: it must be above 0 seconds; "
                "was a point in time given instead of a span?"
            )
        prediction = self.predictor.predict(spec, traffic_class)
        estimate = prediction.estimate
        if spec.tokens is not None:
            estimate = capped(stated(spec.tokens), spec.max_tokens)
        given = spec.prompt_tokens
        request = Request(
            id=next(self._ids),
            traffic_class=traffic_class.name,
            arrived_at=now,
            estimate=estimate,
            deadline=now + deadline_s,
            expires_at=now + expires_in_s,
            tenant=spec.tenant,
            model=spec.model,
            prompt_tokens=prediction.prompt_tokens if given is None else given,
            session=spec.session,
            route=prediction.route or spec.route,
        )
        return request, prediction.learn

    def trace(self, spec: RequestSpec, request: Request) -> Trace | None:
        """Begin the request's trace, as a child of the caller's."""
        if self.tracer is None:
            return None
        operation = _OPERATIONS.get(spec.endpoint, "")
        public_id = self.public_id(request.id)
        return self.tracer.begin(public_id, request, operation=operation, vendor=spec.vendor)

    def public_id(self, request_id: int) -> str:
        """Return the id that callers, logs and `penstock explain` use: run and number."""
        return f"{self.run}-{request_id}"

    def _class_named(self, name: str) -> TrafficClass:
        try:
            return self.classes[name]
        except KeyError:
            raise ValueError(
                f"traffic class {name!r} is not configured: known are "
                f"{', '.join(self.classes)}; is it a typing error?"
            ) from None
