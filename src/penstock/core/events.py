"""What the core is told (events) and what it answers (actions).

A list of `(now, event)` replays any production decision. Nobody changes one once it is made; those
that every request brings are not frozen, because making a frozen object takes 3 times as long.
"""

from dataclasses import dataclass, field
from enum import StrEnum

from penstock.core.model import Request
from penstock.core.settings import Settings


class RefusalCause(StrEnum):
    """Why a provider would not serve an attempt. Each is answered differently."""

    RATE = "rate"
    """429 for a moment: honour retry-after, shrink."""
    QUOTA = "quota"
    """429 with the account spent: stop this upstream until its reset, go elsewhere."""
    OVERLOAD = "overload"
    """503 or 529: shrink, back off with full jitter."""
    SLOW_FIRST_TOKEN = "slow_first_token"
    """No first token in time: shrink."""
    REQUEST = "request"
    """This request can never pass (too large for the limit): it ends, nobody else waits for it."""
    DENIED = "denied"
    """It refuses our key, model or path, which others accept: pause it, its window is as it was."""


@dataclass(slots=True)
class Arrived:
    """A caller submitted a request."""

    request: Request


@dataclass(slots=True)
class FirstToken:
    """The first token of a reply came back."""

    request_id: int


@dataclass(slots=True)
class Completed:
    """A reply is complete.

    Attributes:
        output_tokens: the real count, or None if the reply did not say and nobody counted.
        prompt_tokens: the real input count, cached tokens included, or None.
        reported: True if the provider said so, False if we estimated it from the text.
        cached_tokens: how many of `prompt_tokens` the provider read from its prompt cache, or None
            if it did not say.
        counted_input_tokens: how many of `prompt_tokens` count towards the provider's limits; None
            if all do.
        ignored: how many counts the provider stated that are none, and were left out here.

    """

    request_id: int
    output_tokens: int | None
    prompt_tokens: int | None = None
    reported: bool = True
    cached_tokens: int | None = None
    counted_input_tokens: int | None = None
    ignored: int = 0

    @property
    def limited_tokens(self) -> int | None:
        """What the provider counts towards its limits on input tokens, or None if unknown."""
        counted = self.counted_input_tokens
        return self.prompt_tokens if counted is None else counted

    @property
    def counted_share(self) -> float | None:
        """Which share of the input counts towards the provider's limits, or None if unknown."""
        if not self.prompt_tokens:
            return None
        counted = self.counted_input_tokens
        return 1.0 if counted is None else min(1.0, max(0.0, counted / self.prompt_tokens))


@dataclass(frozen=True, slots=True)
class Throttled:
    """The provider refused an attempt.

    Attributes:
        retry_after_s: the provider's wish, or None.
        jitter: a number in [0, 1) drawn by the driver (the core has no chance of its own),
            for full-jitter back-off.
        retryable: False where the request must not go out again: bytes of a reply have been
            relayed, or the provider may be working on it still.

    """

    request_id: int
    cause: RefusalCause
    retry_after_s: float | None = None
    jitter: float = 0.5
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """An attempt broke.

    Attributes:
        retryable: False once a byte of the reply has been relayed, or where the fault is the
            caller's (a 4xx answer is relayed as it is and frees the slot).
        upstream_fault: True if it speaks against the upstream's health (5xx, reset, stall).
        reached: False if nothing of the attempt can have got to the provider (nobody answered the
            call for a connection).
        reused: True if a connection that had served others before ended without a byte of an
            answer: the upstream may have closed it before it saw the request.

    """

    request_id: int
    retryable: bool = False
    upstream_fault: bool = True
    jitter: float = 0.5
    reached: bool = True
    reused: bool = False


@dataclass(frozen=True, slots=True)
class Cancelled:
    """The caller went away; allowed in every state, and after the end too."""

    request_id: int


@dataclass(frozen=True, slots=True)
class Woke:
    """A timer that `next_wakeup` asked for has come due."""


@dataclass(frozen=True, slots=True)
class Draining:
    """No new work: arrivals and everything queued are rejected, what flies may finish."""


@dataclass(frozen=True, slots=True)
class DriverStalled:
    """The driver could not act from `since` until now: a held event loop, a suspended process.

    Attributes:
        since: driver seconds at which it was last seen to act.

    """

    since: float


@dataclass(slots=True)
class LimitsSeen:
    """An upstream stated its limits, by headers.

    Attributes:
        model: of the answered request, as `Request.model`: the limits are this model's. Empty
            if they are the whole account's.
        account: whose limits they are, as `Request.account`.
        limit_requests: requests a minute, or None if not stated; tokens likewise.
        remaining_requests: what is left of it now.
        reset_requests_s: seconds until it is full again.

    """

    upstream: str
    limit_requests: float | None = None
    remaining_requests: float | None = None
    reset_requests_s: float | None = None
    limit_tokens: float | None = None
    remaining_tokens: float | None = None
    reset_tokens_s: float | None = None
    limit_input_tokens: float | None = None
    remaining_input_tokens: float | None = None
    reset_input_tokens_s: float | None = None
    limit_output_tokens: float | None = None
    remaining_output_tokens: float | None = None
    reset_output_tokens_s: float | None = None
    model: str = ""
    account: str = ""


@dataclass(frozen=True, slots=True)
class PauseLifted:
    """An operator says that an upstream may be used again: its circuit closes.

    Attributes:
        account: whose circuit, as `Request.account`; empty for the default one.

    """

    upstream: str
    account: str = ""


@dataclass(frozen=True, slots=True)
class Pinned:
    """An operator holds something at a value for a while, whatever was learnt or configured.

    Attributes:
        what: "window" or "pause" of an upstream, "weight" of a class.
        name: the upstream's or the class's.
        value: requests in flight, or the weight; a pause has none.
        until: driver seconds at which it ends by itself; one that is past ends the pin at once.

    """

    what: str
    name: str
    value: float
    until: float


@dataclass(frozen=True, slots=True)
class Reconfigured:
    """An operator's new settings hold from now on."""

    settings: Settings


Event = (
    Arrived
    | FirstToken
    | Completed
    | Throttled
    | Failed
    | Cancelled
    | Woke
    | Draining
    | DriverStalled
    | LimitsSeen
    | PauseLifted
    | Pinned
    | Reconfigured
)


@dataclass(slots=True)
class Why:
    """Everything a decision stood on, for the log, the headers and `penstock explain`.

    Attributes:
        severity: overload in [0, 1] at the decision.
        rung: the cost ladder's step that the request stands on (its predicted bucket).
        deficit_tokens: what its class had left to spend after the decision.
        window: how many requests the capacity policy allowed in flight (inf if no limit).
        in_flight: how many flew before the decision.
        backlog: how many waited, this one not counted.
        waited_s: time since arrival.
        deferrals: how often it was sent back so far.
        attempts: how often it was sent upstream before.
        slack_s: deadline minus now minus the predicted p90 service time; inf without deadline.
        service_p50_s: predicted service time at the estimate's median.
        waits: seconds of `waited_s` by cause, of its own or of the head of its queue: "class"
            (another class's turn, or room kept for it), "window" (no room upstream), "limits"
            (requests or tokens per minute), "upstream" (paused after refusals), "deferral" (the
            ladder), "backoff" (after a failed attempt).
        sent_meanwhile: how many others of its class were sent while it waited for its turn.

    """

    severity: float
    rung: str
    deficit_tokens: float
    window: float
    in_flight: int
    backlog: int
    waited_s: float
    deferrals: int
    attempts: int
    slack_s: float
    service_p50_s: float
    waits: dict[str, float]
    sent_meanwhile: int = 0

    @property
    def longest_wait(self) -> str:
        """The cause that it waited for longest; empty if it did not wait."""
        return max(self.waits, key=self.waits.__getitem__) if self.waits else ""


@dataclass(slots=True)
class Dispatch:
    """Send the request to this upstream now."""

    request: Request
    upstream: str
    why: Why


@dataclass(slots=True)
class Defer:
    """Hold the request at least until then; it keeps its place."""

    request: Request
    until: float
    reason: str
    why: Why


@dataclass(slots=True)
class Reject:
    """Refuse the request.

    Attributes:
        reason: "shed", "queue_full", "expired", "hopeless" (it can no longer be on time, and its
            class refuses such), "draining", "quota" (every upstream's is spent), "rate" (all
            pause for longer than it can wait), "upstream" (the last attempt's answer is relayed),
            "no_upstream", "too_large" (dearer than any upstream's limits can ever hold), "fault"
            (something inside raised while it was being handled).
        retry_after_s: the earliest time at which a new try makes sense, or None if never.

    """

    request: Request
    reason: str
    retry_after_s: float | None
    why: Why


@dataclass(slots=True)
class Abandoned:
    """The caller of a waiting request left; there is nothing to carry out."""

    request: Request
    why: Why


@dataclass(slots=True)
class WindowMoved:
    """The concurrency limit of one upstream changed; there is nothing to carry out.

    Attributes:
        before: requests that could be in flight until now; inf for no limit.
        after: requests that may be in flight from now on.
        because: what moved it, a word of `docs/how-to/why-did-the-window-move.md`.
        evidence: the figures that the move stands on, by name with their units.

    """

    upstream: str
    before: float
    after: float
    because: str
    evidence: dict[str, float] = field(default_factory=dict)


Decision = Dispatch | Defer | Reject
"""An action about one request, for its caller."""
Action = Decision | Abandoned | WindowMoved
