"""From a caller's words to the core's `Request`."""

import itertools
import math
from collections.abc import Callable

from penstock.calls.endpoint import Endpoint
from penstock.calls.facts import Facts
from penstock.calls.hints import Hints
from penstock.calls.spec import (
    Predictor,
    RequestSpec,
    TablePredictor,
    estimate_for,
    make_plain,
)
from penstock.calls.tracing import Tracer
from penstock.core.model import Request, TrafficClass


def spec_of_call(endpoint: Endpoint, body: object, facts: Facts, hints: Hints) -> RequestSpec:
    """Return the words of an HTTP call: its body, read once, and its hints."""
    return RequestSpec(
        hints.traffic_class,
        hints.deadline_s,
        hints.deadline_s,  # it stops waiting when its deadline has passed
        hints.tokens,
        None,
        None,
        hints.tenant or "",
        facts.model,
        hints.session or "",
        None,
        body if isinstance(body, dict) else None,
        hints.route or "",
        endpoint.kind.value,
        endpoint.vendor.value,
        "",
        facts,
    )


class RequestFactory:
    """Turns specs into requests: class, estimate, deadline, sequence number.

    One factory serves all gates of a driver, so that ids are unique. Its counter may be used
    from any thread.

    Args:
        classes: the scheduler's classes.
        run: names this process in public ids.
        default_class: for specs that name none; the first of `classes` if None.
        predictor: the class's table if None.
        ttl_s: how long a request may wait if its spec does not say.
        tracer: told of each request in its caller's context; give it to the driver's observers
            too. Nobody traces if None.

    Raises:
        ValueError: the default class is not among the classes.

    """

    def __init__(
        self,
        classes: tuple[TrafficClass, ...],
        *,
        run: str,
        default_class: str | None = None,
        predictor: Predictor | None = None,
        ttl_s: float = math.inf,
        tracer: Tracer | None = None,
    ) -> None:
        """Remember the classes by name."""
        self.classes = {each.name: each for each in classes}
        self.default_class = default_class if default_class is not None else classes[0].name
        self._class_named(self.default_class)
        self.predictor = predictor if predictor is not None else TablePredictor()
        self.ttl_s = ttl_s
        self.run = run
        self._ids = itertools.count(1)
        self.tracer = tracer

    def request(
        self, spec: RequestSpec, *, now: float
    ) -> tuple[Request, Callable[[int], None] | None]:
        """Return the request as the scheduler sees it, and who learns from its real length.

        Args:
            spec: what the caller says.
            now: driver seconds.

        Raises:
            TypeError: a name that is no string, a body that is no object, a prompt that is no text.
            ValueError: an unknown class, a name that is too long, a time that is not a positive
                number, or tokens that are no length of a reply.

        """
        make_plain(spec)
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
        facts = spec.read()
        prediction = spec.prediction or self.predictor.predict(spec, traffic_class)
        estimate = estimate_for(spec, prediction)
        given = spec.prompt_tokens
        request = Request(
            id=next(self._ids),
            traffic_class=traffic_class.name,
            arrived_at=now,
            estimate=estimate,
            deadline=now + deadline_s,
            expires_at=now + expires_in_s,
            tenant=spec.tenant,
            account=spec.account,
            model=spec.model or facts.model,
            prompt_tokens=(prediction.prompt_tokens or facts.prompt_tokens)
            if given is None
            else given,
            session=spec.session,
            route=prediction.route or spec.route,
            upstream=spec.upstream,
            cap_tokens=spec.cap_tokens,
            leaves_at=math.inf if spec.leaves_in_s is None else now + spec.leaves_in_s,
        )
        return request, prediction.learn

    def _class_named(self, name: str) -> TrafficClass:
        try:
            return self.classes[name]
        except KeyError:
            raise ValueError(
                f"traffic class {name!r} is not configured: known are "
                f"{', '.join(self.classes)}; is it a typing error?"
            ) from None
