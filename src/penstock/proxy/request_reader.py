"""From an HTTP request to what the gate wants to know; every bad request ends here.

Who calls decides what may be asked for: worse treatment, never better, unless configured.
"""

import hmac
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from penstock.asgi import Receive
from penstock.calls.endpoint import Endpoint
from penstock.calls.factory import spec_of_call
from penstock.calls.facts import Facts, facts_of, may_refer, references_of
from penstock.calls.form import FormError, form_of, is_form
from penstock.calls.hints import (
    PROGRESS_HEADER,
    REPEAT_HEADER,
    HintError,
    Hints,
    hints_of,
    timeout_s_of,
)
from penstock.calls.spec import Predictor, RequestSpec, estimate_for
from penstock.core.model import TrafficClass, bucket_of
from penstock.proxy.bodies import Body, BodyReader, Held
from penstock.proxy.config.load import Loaded
from penstock.proxy.config.models import Caller, Key
from penstock.proxy.declined import Declined, no_key
from penstock.proxy.headers import Head, Header
from penstock.proxy.holders import Holders
from penstock.proxy.routing import Routing, Target, renamed, with_model
from penstock.runtime.accounts import credential
from penstock.wire import jsonio


@dataclass(frozen=True, slots=True)
class Treatment:
    """How a request will be treated."""

    traffic_class: str
    deadline_s: float
    tenant: str


class Callers:
    """Knows every caller's rights."""

    def __init__(self, loaded: Loaded) -> None:
        """Take over the configuration's keys and classes."""
        config = loaded.config
        # From the best treated to the worst: the order of the file.
        self._rank = {item.name: rank for rank, item in enumerate(config.classes)}
        self._deadline_s = {
            item.name: math.inf if item.deadline_s is None else item.deadline_s
            for item in config.classes
        }
        self._by_bucket: dict[str, str] = {
            bucket: item.name for item in config.classes for bucket in item.buckets
        }
        self._only = config.classes[0].name if len(config.classes) == 1 else None
        by_bucket = [item for item in config.classes if item.buckets]
        self._timed = (
            any(item.deadline_s for item in by_bucket)
            or len({(item.hopeless, item.ttl_s) for item in by_bucket}) > 1
        )
        self._anonymous = config.anonymous
        self._keys = [(loaded.caller_keys[key.name].reveal().encode(), key) for key in config.keys]

    def identify(self, headers: Iterable[Header]) -> Caller:
        """Return the caller's rights.

        Raises:
            Declined: 401, no key or an unknown one (where keys are configured).

        """
        if not self._keys:
            return self._anonymous
        presented = credential(headers)
        if presented is None:
            raise no_key()
        found: Caller | None = None
        for key, rights in self._keys:
            # Every key is compared, in constant time: timing tells nothing about any of them.
            if hmac.compare_digest(key, presented):
                found = rights
        if found is None:
            raise Declined(401, "invalid_api_key", "The API key is not known here.")
        return found

    def needs_length(self, rights: Caller, hints: Hints) -> bool:
        """Return whether a call's predicted length decides something even where nothing waits.

        Its class may be allowed or not by its length, and classes by length may differ in more
        than in their shares of what is scarce.
        """
        if rights.traffic_class is not None:
            return False
        return self._timed if hints.traffic_class is None else bool(self._by_bucket)

    def treat(self, rights: Caller, hints: Hints, bucket: str) -> Treatment:
        """Return how the request will be treated.

        Raises:
            Declined: 400 for a class that does not exist, 403 for asking for more than allowed.

        """
        own = rights.traffic_class or self._by_bucket.get(bucket) or self._only
        assert own is not None, "the configuration's check lets no bucket go without a class"
        name = own
        if hints.traffic_class is not None:
            name = self._asked_class(rights, hints.traffic_class, own)
        deadline_s = self._deadline_s[name]
        if hints.deadline_s is not None:
            shortest = rights.shortest_deadline_s
            floor = deadline_s if shortest is None else shortest
            if hints.deadline_s < floor:
                least = "any" if math.isinf(floor) else f"one below {floor * 1000:g} ms"
                raise Declined(
                    403,
                    "deadline_not_allowed",
                    f"x-penstock-deadline-ms: this caller may not ask for {least}; "
                    f"shortest_deadline_s in {_table(rights)} allows it.",
                )
            deadline_s = hints.deadline_s
        if hints.tenant is not None and not rights.may_name_tenant:
            raise Declined(
                403,
                "tenant_not_allowed",
                "x-penstock-tenant: this caller may not name a tenant; "
                f"may_name_tenant = true in {_table(rights)} allows it.",
            )
        if hints.tokens is not None and not rights.may_state_tokens:
            raise Declined(
                403,
                "tokens_not_allowed",
                "x-penstock-tokens: this caller may not state how long its replies will be; "
                f"may_state_tokens = true in {_table(rights)} allows it.",
            )
        own_tenant = rights.name if isinstance(rights, Key) else ""
        return Treatment(name, deadline_s, hints.tenant or own_tenant)

    def _asked_class(self, rights: Caller, asked: str, own: str) -> str:
        rank = self._rank.get(asked)
        if rank is None:
            raise Declined(
                400,
                "unknown_class",
                f"x-penstock-class: there is no such class; there are {', '.join(self._rank)}.",
            )
        if rank < self._rank[own] and not {asked, "*"} & set(rights.may_ask):
            raise Declined(
                403,
                "class_not_allowed",
                f"x-penstock-class: this caller may not ask for {asked}, only for {own} or a "
                f"class listed after it; may_ask in {_table(rights)} allows it.",
            )
        return asked


def _table(rights: Caller) -> str:
    """Return where the configuration states them, for people."""
    return f"the [[keys]] table named {rights.name}" if isinstance(rights, Key) else "[anonymous]"


_JSON = b"application/json"
PATIENCE_SHARE = 0.9
"""Of the time for which an SDK waits: what was refused until then is answered before it leaves."""


@dataclass(slots=True)
class Prepared:
    """A good request.

    Attributes:
        endpoint: what it asks for.
        facts: of its body, with the model as the caller names it.
        spec: what the gate is told.
        body: of the request.
        deadline_s: seconds from arrival; inf if none.
        refers: ids of what an upstream keeps.
        head: its headers by name, the first of several.
        may_fall_back: whether the caller takes another model's answer.

    """

    endpoint: Endpoint
    facts: Facts
    spec: RequestSpec
    body: Body
    deadline_s: float
    refers: tuple[str, ...]
    head: Head
    may_fall_back: bool = True

    @property
    def repeatable(self) -> bool:
        """Whether the caller says that sending it twice does no harm."""
        return self.head.get(REPEAT_HEADER) == b"true" or bool(self.head.get(b"idempotency-key"))


@dataclass(frozen=True, slots=True)
class ReadingRules:
    """What a configuration says about reading requests.

    Attributes:
        default: a class whose estimate stands in where none is known yet.
        ttl_s: how long a request of a class may wait.

    """

    callers: Callers
    routing: Routing
    default: TrafficClass
    max_body_bytes: int
    body_timeout_s: float
    ttl_s: dict[str, float]


class RequestReader:
    """Checks requests, from the cheapest test to the dearest.

    What scheduling does not need is relayed as it is, for the provider to judge: the body must be
    a JSON object whose model an upstream serves, and that is all.
    """

    def __init__(
        self,
        rules: ReadingRules,
        predictor: Predictor,
        *,
        classes: dict[str, TrafficClass],
        holders: Holders,
        now: Callable[[], float],
        idle: Callable[[], bool],
    ) -> None:
        """Take what the checks need."""
        self._predictor = predictor
        self._classes = classes
        self._bodies = BodyReader(rules.max_body_bytes, rules.body_timeout_s)
        self._holders = holders
        self._now = now
        self._idle = idle
        self._rules = rules

    def reconfigure(self, rules: ReadingRules) -> None:
        """Go by these from now on; a request whose body is still coming keeps its rights."""
        self._rules = rules
        self._bodies.max_bytes = rules.max_body_bytes
        self._bodies.patience.span_s = rules.body_timeout_s

    def authorise(self, headers: list[Header]) -> None:
        """Check the caller's key alone, for requests that are not scheduled.

        Raises:
            Declined: 401.

        """
        self._rules.callers.identify(headers)

    async def plain_body(self, headers: list[Header], receive: Receive, held: Held) -> bytes:
        """Return the body of a request that is not scheduled, without its content encoding.

        Raises:
            Declined: with the status that fits.

        """
        body = await self._bodies.read(dict(reversed(headers)), receive, held)
        _require_few_values(body.plain)
        return body.plain

    async def prepare(
        self,
        endpoint: Endpoint,
        headers: list[Header],
        receive: Receive,
        held: Held,
        *,
        model: str = "",
    ) -> Prepared:
        """Return the request, checked and estimated.

        Args:
            endpoint: what it asks for.
            headers: of the request.
            receive: its body.
            held: counts the bytes of its body, for its caller's account.
            model: as its path names it, for a body that names none.

        Raises:
            Declined: with the status that fits.

        """
        callers = self._rules.callers
        rights = callers.identify(headers)
        try:
            hints = hints_of(headers)
        except HintError as error:
            raise Declined(400, "invalid_header", f"{error}") from None
        head = dict(reversed(headers))  # the first of several counts
        body = await self._bodies.read(head, receive, held)
        parsed = _parsed(head, body.plain)
        if model and not body.packed and parsed.get("model", "") == "":
            plain = body.plain  # openai-node's own example for Azure sends an empty name
            named = renamed(plain, {"": model}) if "model" in parsed else with_model(plain, model)
            parsed["model"] = model
            body = Body(named, named)
        facts = facts_of(endpoint, parsed)
        target = self._target(endpoint, facts, held.account)
        spec = spec_of_call(endpoint, parsed, facts, hints)
        rules = self._rules
        certain = hints.traffic_class or rights.traffic_class
        spec.idle = self._idle() and not callers.needs_length(rights, hints)
        prediction = self._predictor.predict(spec, self._classes.get(certain or "", rules.default))
        spec.prediction = prediction
        bucket = bucket_of(estimate_for(spec, prediction).p50_tokens)
        treatment = callers.treat(rights, hints, bucket)
        spec.traffic_class = treatment.traffic_class
        spec.deadline_s = treatment.deadline_s
        spec.expires_in_s = rules.ttl_s.get(treatment.traffic_class, math.inf)
        timeout_s = timeout_s_of(head)
        if timeout_s is not None and PROGRESS_HEADER not in head:  # signs of life renew its time
            spec.leaves_in_s = PATIENCE_SHARE * timeout_s
        spec.tenant = treatment.tenant
        spec.model = target.name
        if target.needs_caller_key:
            spec.account = held.account
        refers = references_of(parsed) if may_refer(body.plain) else []
        if refers:
            spec.upstream = self._holders.of(refers, now=self._now())
        return Prepared(
            endpoint,
            facts,
            spec,
            body,
            treatment.deadline_s,
            tuple(refers),
            head,
            hints.fallback is None,
        )

    def target_of(self, endpoint: Endpoint, model: str) -> Target | None:
        """Return who serves a model to callers of this endpoint; None if nobody does."""
        return self._rules.routing.resolve(endpoint.vendor, model)

    def _target(self, endpoint: Endpoint, facts: Facts, account: str) -> Target:
        target = self.target_of(endpoint, _model_of(facts))
        if target is None:
            raise Declined(
                404,
                "model_not_found",
                f"No upstream here of dialect {endpoint.vendor} serves the model {facts.model!r} "
                f"on {endpoint.path}.",
            )
        if target.needs_caller_key and not account:
            raise no_key()
        return target


def _model_of(facts: Facts) -> str:
    """Return the model; without one nobody can say where a call belongs."""
    if not facts.model:
        rule = next(rule for rule in facts.problems if rule.startswith("model"))
        raise Declined(400, "invalid_model", f"{rule}.")
    return facts.model


def _require_few_values(body: bytes) -> None:
    if jsonio.has_too_many_values(body):
        text = f"The request's body has more than {jsonio.MOST_VALUES} values: is it one call?"
        raise Declined(413, "body_too_large", text)


def _parsed(head: Head, body: bytes) -> dict[str, Any]:
    kind = head.get(b"content-type")
    if kind is not None and kind != _JSON and is_form(text := kind.decode("latin-1")):
        try:
            return form_of(text, body)
        except FormError as error:
            raise Declined(400, "invalid_form", f"{error}.") from None
    _require_few_values(body)
    try:
        parsed = jsonio.lenient_loads(body)
    except ValueError:
        raise Declined(
            400, "invalid_json", "The body is not valid JSON: was it cut short or encoded twice?"
        ) from None
    if type(parsed) is not dict:
        raise Declined(400, "invalid_json", "The body must be a JSON object.")
    return parsed
