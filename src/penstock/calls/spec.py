"""What a caller says about a request, and how many output tokens it will have.

Stated > learnt > cap > class: a caller's own word goes before what was learnt, a learning predictor
before a trusted cap, and that before the class's table; whatever it is, the call's cap cuts it.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from penstock.calls.endpoint import BY_KIND, CHAT, Endpoint
from penstock.calls.facts import MOST_NAME_CHARS, MOST_TOKENS, Facts, facts_of, text_tokens
from penstock.core.model import LARGEST_ESTIMATE_TOKENS, TokenEstimate, TrafficClass
from penstock.core.rule import plain_number

STATED = "caller"
"""The source of an estimate that the caller stated."""
CAPPED = "max_tokens"
"""The source of an estimate that the call's cap decides."""

MEDIAN_OF_TRUSTED_CAP = 0.6
"""Callers who set `max_tokens` to what they need leave some room (ours, version 1)."""


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


@dataclass(slots=True)  # not frozen: that makes each call 3 us dearer; nobody changes one
class RequestSpec:
    """A request in the caller's words; everything is optional. Names have 256 characters at most.

    Attributes:
        traffic_class: the class by name; the gate's default if None.
        deadline_s: seconds from now until the last token is wanted; the class's if None.
        expires_in_s: seconds from now after which it is refused if still waiting.
        leaves_in_s: seconds from now after which its caller waits no longer, and after which it is
            not sent again; never if None.
        tokens: how many output tokens the reply will have, where the caller knows better than a
            prediction: a count, a median and a 90th percentile, or an estimate.
        max_tokens: the most that the reply may have, all choices together; caps what is stated or
            predicted. The body's if None.
        prompt_tokens: input size, if known; otherwise it is counted in `body` or `prompt`.
        tenant, session, account: as in `core.model.Request`.
        model: likewise; the body's if empty.
        prompt: the text, to be counted and for the predictor; never kept, logged or shown.
        body: the parsed API request, likewise.
        route: a name for this kind of call (a prompt template, say), for the predictor and the log.
        endpoint: "chat", "completions", "responses", "embeddings" or "messages": how to read
            `body`, and for the trace; "chat" if empty.
        vendor: "openai" or "anthropic", for the trace.
        upstream: the only one that may have it; any if empty.
        facts: of `body` or `prompt`, once somebody has read it.
        prediction: of the output tokens, where it is made already.
        idle: whether nothing waits where it goes; the gate says so, for the predictor.

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
    upstream: str = ""
    facts: Facts | None = field(default=None, repr=False, compare=False)
    prediction: Prediction | None = field(default=None, repr=False)
    account: str = ""
    idle: bool = field(default=False, repr=False, compare=False)
    leaves_in_s: float | None = None

    @property
    def endpoint_row(self) -> Endpoint:
        """The endpoint's row; that of chats for a name that no row has."""
        return BY_KIND.get(self.endpoint, CHAT)

    @property
    def cap_tokens(self) -> int | None:
        """The most output tokens: the caller's word, else the body's."""
        if self.max_tokens is not None:
            return self.max_tokens
        return None if self.facts is None else self.facts.max_tokens

    def read(self) -> Facts:
        """Return the facts of the body, or of the bare prompt; read once."""
        facts = self.facts
        if facts is None:
            if self.body is not None:
                facts = facts_of(self.endpoint_row, self.body)
            elif self.prompt is not None:
                facts = Facts(prompt_tokens=text_tokens(self.prompt))
            else:
                facts = Facts()
            self.facts = facts
        return facts


_NAMES = (
    "traffic_class", "tenant", "model", "session", "route", "endpoint", "vendor", "upstream",
    "account",
)  # fmt: skip
_SPANS = ("deadline_s", "expires_in_s", "leaves_in_s")
_COUNTS = ("max_tokens", "prompt_tokens")


def make_plain(spec: RequestSpec) -> None:
    """Put strings and numbers of Python's own into a spec in place of subclasses of them.

    They stay in the scheduler's books and in the log, where one that is no string, or that
    compares in a way of its own, would break what others ask for.

    Raises:
        TypeError: a name is no string, the body no object or the prompt no text.
        ValueError: a name is too long or holds half a character, or a number is none.

    """
    for name in _NAMES:
        value = getattr(spec, name)
        if type(value) is not str or len(value) > MOST_NAME_CHARS or not value.isascii():
            setattr(spec, name, plain_name(name, value))
    for name in _SPANS:
        value = getattr(spec, name)
        if value is not None and type(value) is not float:
            setattr(spec, name, plain_number(name, value))
    for name in _COUNTS:
        value = getattr(spec, name)
        if value is not None:
            setattr(spec, name, plain_count(name, value))
    if not isinstance(spec.body, Mapping | None):
        raise TypeError(f"body must be a parsed JSON object, not of type {_type(spec.body)}")
    if not isinstance(spec.prompt, str | None):
        raise TypeError(f"prompt must be a text, not of type {_type(spec.prompt)}")


def plain_name(field: str, value: object) -> str:
    """Return a name as a string of Python's own; empty if it is None.

    Raises:
        TypeError: it is no string.
        ValueError: it is too long, or holds half a character.

    """
    if value is None:
        return ""
    if not isinstance(value, str):
        raise TypeError(f"{field} must be a string, not of type {_type(value)}: write str(...)")
    name = str.__str__(value)
    if len(name) > MOST_NAME_CHARS:
        raise ValueError(f"{field} must not be longer than {MOST_NAME_CHARS} characters")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{field}={name!r} holds half a character (a lone surrogate)") from None
    return name


def plain_count(field: str, value: Any) -> Any:
    """Return a number as Python's own, a whole one as an int.

    Raises:
        ValueError: it is none.

    """
    number = plain_number(field, value)
    return int(number) if type(number) is float and number.is_integer() else number


def _type(value: object) -> str:
    return type(value).__name__


class Predictor(Protocol):
    """Predicts output tokens at submission and learns from every reply.

    Neither may raise, wait or take longer than a few milliseconds.
    """

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        """Return the estimate for a request of that class; it keeps nothing of the spec's text.

        Where `spec.tokens` states the length, the estimate is not used, but `learn` is.
        """
        ...


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a table of estimates.

    Attributes:
        fits: says whether it is for calls of this model at this path (after /v1).
        estimate: of one reply.

    """

    fits: Callable[[str, str], bool]
    estimate: TokenEstimate


class TablePredictor:
    """What is known before anything was learnt: a table's row, the call's cap, the class's word.

    Args:
        rows: the first that fits a call goes before its class.
        trusts_cap: whether `max_tokens` is what callers expect, rather than a mere cap.

    """

    def __init__(self, rows: Sequence[Row] = (), *, trusts_cap: bool = False) -> None:
        """Keep the table."""
        self._rows = rows
        self._trusts_cap = trusts_cap

    def predict(self, spec: RequestSpec, traffic_class: TrafficClass) -> Prediction:
        """Return the table's estimate, times the replies, no quantile above the call's cap."""
        facts = spec.read()
        reply = spec.endpoint_row.reply
        if reply is not None:
            return Prediction(times(reply, facts.units))
        cap = spec.cap_tokens
        row = self._row(spec) if self._rows else None
        if row is None and cap is not None and self._trusts_cap:
            p90 = min(max(float(cap), 1.0), float(MOST_TOKENS) * facts.replies)
            return Prediction(TokenEstimate(max(1.0, p90 * MEDIAN_OF_TRUSTED_CAP), p90, CAPPED))
        return Prediction(times(row or traffic_class.estimate, facts.replies).capped(cap, CAPPED))

    def _row(self, spec: RequestSpec) -> TokenEstimate | None:
        model, tail = spec.model or spec.read().model, spec.endpoint_row.tail
        return next((row.estimate for row in self._rows if row.fits(model, tail)), None)


def stated(tokens: TokenEstimate | float | tuple[float, float]) -> TokenEstimate:
    """Return the caller's word as an estimate.

    Args:
        tokens: output tokens: a count, or a median and a 90th percentile; an estimate is
            returned as it is.

    Raises:
        ValueError: it is neither, or no length of a reply.

    """
    if isinstance(tokens, TokenEstimate):
        estimate = tokens
    else:
        pair = tokens if isinstance(tokens, tuple) else (tokens, tokens)
        try:
            p50, p90 = pair
            estimate = TokenEstimate(p50, p90, STATED)
        except (TypeError, ValueError):
            raise _no_length(tokens) from None
    if estimate.p90_tokens > MOST_TOKENS:
        raise _no_length(tokens)
    return estimate


def _no_length(tokens: object) -> ValueError:
    return ValueError(
        f"tokens={tokens!r} is no length of a reply: it must be a count of output tokens, 1 to "
        f"{MOST_TOKENS}, or a median and a 90th percentile such as (40, 90); were the two swapped?"
    )


def estimate_for(spec: RequestSpec, prediction: Prediction) -> TokenEstimate:
    """Return the caller's word, else the prediction, with no quantile above what the call allows.

    A block's word covers many calls; one of them may be an embedding, or ask for less.
    """
    said = prediction.estimate if spec.tokens is None else stated(spec.tokens)
    return said.capped(spec.cap_tokens)


def times(estimate: TokenEstimate, count: float) -> TokenEstimate:
    """Return the estimate for so many replies, images or seconds."""
    if count == 1:
        return estimate
    p50, p90 = (
        min(max(1.0, tokens * count), LARGEST_ESTIMATE_TOKENS)
        for tokens in (estimate.p50_tokens, estimate.p90_tokens)
    )
    return TokenEstimate(p50, p90, estimate.source)
