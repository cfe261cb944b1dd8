"""What the scheduler knows of the world: requests, classes, estimates, and names it may forget."""

import math
from bisect import bisect_left
from dataclasses import dataclass, field
from typing import Literal, TypeVar

from penstock.core.rule import Rule, plain_number, shown

V = TypeVar("V")


class Latest(dict[str, V]):
    """The values of the names that were put last, at most `most` of them."""

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        """Start empty."""
        super().__init__()
        self._most = most

    def put(self, name: str, value: V) -> None:
        """Put a name last; of too many the first is forgotten."""
        self.pop(name, None)
        self[name] = value
        while len(self) > self._most:
            self.pop(next(iter(self)), None)  # another thread may have done so


BUCKET_UPPER_TOKENS: tuple[tuple[str, float], ...] = (
    ("short", 64),
    ("medium", 256),
    ("long", 1024),
    ("xlong", math.inf),
)
"""Output-token buckets and their inclusive upper bounds (ours, version 1)."""
LARGEST_ESTIMATE_TOKENS = 1e9
"""No estimate is larger: 2,048 of the longest replies that any provider offers are fewer."""
_NAMES = tuple(name for name, _ in BUCKET_UPPER_TOKENS)
_UPPER_TOKENS = tuple(upper for _, upper in BUCKET_UPPER_TOKENS)


WEIGHT = Rule(low=1e-6, high=1e6, why="relative to the other classes' weights")
_SPAN = Rule(low=0, low_is_allowed=False, infinite=True)
_HOPELESS = Rule(choices=("serve", "refuse"))
_QUEUE = Rule(low=1, whole=True)


def bucket_of(output_tokens: float) -> str:
    """Return the name of the bucket that holds this many output tokens.

    Raises:
        ValueError: the count is negative or not a number.

    Source:
        The four buckets are the paper's, their bounds ours.

    """
    if not output_tokens >= 0:
        raise ValueError(
            f"output_tokens={output_tokens!r} is not a count: it must be 0 or more; "
            "was a failed reply counted?"
        )
    return _NAMES[bisect_left(_UPPER_TOKENS, output_tokens)]


@dataclass(slots=True, unsafe_hash=True)
class TokenEstimate:
    """A coarse prior of how many tokens a reply will have. Nobody changes it.

    Not frozen, as `Request` is not: most calls bring one of their own.

    Attributes:
        p50_tokens: the median; what the request is charged until its real usage is known.
        p90_tokens: the 90th percentile; what deadlines are checked against.
        source: where the estimate came from, for the decision log ("table", "max_tokens",
            "oracle", "predictor:online", ...).

    """

    p50_tokens: float
    p90_tokens: float
    source: str = "table"

    def __post_init__(self) -> None:
        """Refuse what is no quantile pair.

        Raises:
            ValueError: a quantile is below 1, above `LARGEST_ESTIMATE_TOKENS` or no number, or
                p90 is below p50.

        """
        if type(self.p50_tokens) is not float or type(self.p90_tokens) is not float:
            self.p50_tokens = plain_number("p50_tokens", self.p50_tokens)
            self.p90_tokens = plain_number("p90_tokens", self.p90_tokens)
        if not 1 <= self.p50_tokens <= self.p90_tokens <= LARGEST_ESTIMATE_TOKENS:
            raise ValueError(
                f"p50={shown(self.p50_tokens)}, p90={shown(self.p90_tokens)} tokens is no "
                f"estimate: 1 <= p50 <= p90 <= {LARGEST_ESTIMATE_TOKENS:g} must hold; were the two "
                "swapped?"
            )

    def capped(self, cap_tokens: float | None, source: str = "") -> "TokenEstimate":
        """Return the estimate with no quantile above a cap.

        Args:
            cap_tokens: for all replies together; None for none.
            source: of an estimate that is cut; as it was if empty.

        """
        if cap_tokens is None or cap_tokens >= self.p90_tokens:
            return self
        p90 = max(float(cap_tokens), 1.0)
        return TokenEstimate(min(self.p50_tokens, p90), p90, source or self.source)


@dataclass(slots=True, unsafe_hash=True)
class Request:
    """One call, as the scheduler sees it: never its text. Nobody changes it.

    Not frozen: eleven fields would take 1.7 us to set and not 0.4.

    Attributes:
        id: the sequence number; unique, growing with arrival, and the last word in every tie.
        traffic_class: name of the class that it belongs to.
        arrived_at: driver seconds at which the caller submitted it.
        estimate: predicted output tokens.
        deadline: driver seconds by which the last token is wanted; inf if none.
        expires_at: driver seconds after which it is refused if still not dispatched.
        leaves_at: driver seconds after which its caller waits no longer; inf if it has not said.
            It is sent no second time after that.
        tenant: whom it is for; fairness inside a class and the log speak of it.
        model: the provider's model; each has its own service-time fit.
        prompt_tokens: input size, for limits on input tokens.
        session: conversation, for upstreams that keep a prompt cache; empty if none.
        route: the kind of call that the estimate was made for, for the log; empty if none.
        account: digest of the key that the caller brings, whose limits and pauses are its own;
            empty for the upstream's own key.
        upstream: the only one that may have it, as it holds what the request names; any if empty.
        cap_tokens: the most output tokens that the caller allows, for limits that charge it.
        inside: id of the request whose slot the caller holds while it waits for this one; None if
            it holds none.

    """

    id: int
    traffic_class: str
    arrived_at: float
    estimate: TokenEstimate
    deadline: float = math.inf
    expires_at: float = math.inf
    tenant: str = ""
    model: str = ""
    prompt_tokens: int = 0
    session: str = ""
    route: str = ""
    account: str = ""
    cap_tokens: int | None = None
    upstream: str = ""
    inside: int | None = None
    leaves_at: float = math.inf

    @property
    def cost_tokens(self) -> float:
        """What the request is expected to cost, in output tokens."""
        return self.estimate.p50_tokens


@dataclass(frozen=True, slots=True)
class TrafficClass:
    """A kind of traffic with one share and one promise.

    Attributes:
        name: as requests name it.
        weight: its share of tokens under contention, relative to the other classes.
        deadline_s: given to a request that states none; inf for none.
        estimate: given to a request of which nothing better is known.
        hopeless: whether a request that can no longer be on time, going by its p50 service time
            alone, is served all the same ("serve") or refused ("refuse").
        queue_limit: how many requests may wait; more are refused.
        queue_limit_tokens: how many predicted tokens may wait; more are refused.
        was: names of classes that it takes over at a reload, with what waits in them.

    """

    name: str
    weight: float = 1.0
    deadline_s: float = math.inf
    estimate: TokenEstimate = field(default_factory=lambda: TokenEstimate(256, 1024))
    hopeless: Literal["serve", "refuse"] = "serve"
    queue_limit: int = 100_000
    queue_limit_tokens: float = math.inf
    was: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse a class that cannot work.

        Raises:
            ValueError: a number breaks its rule; the text gives its name, its value and the rule.

        """
        try:
            WEIGHT.require(weight=self.weight)
            _SPAN.require(deadline_s=self.deadline_s)
            _HOPELESS.require(hopeless=self.hopeless)
            _QUEUE.require(queue_limit=self.queue_limit)
            _SPAN.require(queue_limit_tokens=self.queue_limit_tokens)
        except ValueError as wrong:
            raise ValueError(f"class {self.name!r}: {wrong}") from None
