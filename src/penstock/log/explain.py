"""Says in words why a request was sent, held or refused when it was."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from textwrap import wrap

from penstock.core.events import (
    Abandoned,
    Arrived,
    Cancelled,
    Completed,
    Decision,
    Defer,
    Dispatch,
    Failed,
    FirstToken,
    Reject,
    Throttled,
    Why,
    WindowMoved,
)
from penstock.core.model import Request
from penstock.log.format import NAMES, LogRecord

WAITS = {
    "class": "another class had its turn, or room was kept for one",
    "window": "there was no room upstream",
    "limits": "the requests or tokens per minute were used up",
    "upstream": "the upstream was paused after refusals or failures, or by hand",
    "deferral": "the cost ladder held it back",
    "backoff": "it paused before the next attempt",
}
"""What a request waits for, by the word in `Why.waits`."""
_CAUSES = {
    "rate": "too many requests or tokens for the moment",
    "quota": "the account is spent",
    "overload": "the provider is overloaded",
    "slow_first_token": "no first token in time",
    "request": "this request can never pass there",
    "denied": "its key, model or path is not accepted there",
}
MOVES = {
    "pin": "an operator holds it there; what comes back is learnt from all the same",
    "pin_ended": "an operator's pin is over: what was learnt holds again",
    "reload": "an operator's new settings have another window policy, which starts anew",
    "room": "replies that flew beside so many did not wait inside the provider",
    "queue": "replies took as long as if only so many places served them and the rest queued",
    "sharing": "beyond so many in flight each reply took longer in proportion: no more got done",
    "probe": "too few brief requests flew beyond the window: one more of any kind may",
    "trial": "every reply so far flew in a crowd: fewer fly for a moment to see how fast each is",
    "trial_over": "enough replies flew among few; the window is what it was before",
    "refused": "the provider refused an attempt as too much",
    "reply": "the policy's rule for every reply",
}
"""What moves a window, by the word in `WindowMoved.because`."""
NOTHING_KEPT = "nothing is kept about this id"
"""What the sidecar answers where it remembers no such request."""
REASONS = {
    "shed": "the cost ladder refuses this rung at such a severity",
    "queue_full": "the queue is full, and where tenants take turns its tenant has the most in it",
    "expired": "it waited longer than its time to live",
    "hopeless": "it could no longer be on time, and its class refuses what cannot",
    "draining": "the sidecar is shutting down",
    "quota": "the upstreams' accounts are spent",
    "rate": "the upstreams ask for a longer pause than it can wait",
    "upstream": "the upstream's last answer stands",
    "no_upstream": "no upstream serves its model",
    "too_large": "it costs more than any upstream's limits allow in a minute",
    "fault": "the scheduler failed on it (a defect of penstock: see the log)",
}
"""Why a request is refused, by the word in `Reject.reason`."""


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that happened to a request.

    Attributes:
        after_s: seconds since it arrived.
        what: the event or action, as the decision log names it.
        words: sentences.

    """

    after_s: float
    what: str
    words: list[str]


@dataclass(frozen=True, slots=True)
class RequestHistory:
    """What happened to one request, in order.

    Attributes:
        request: as it arrived.
        opening: sentences that say what it was.
        steps: what happened to it.
        ended: whether the last step is its end.
        phases: how its time was spent: seconds by cause of waiting in the order of
            `core.events.Why.waits`, then "provider" (sent, no token yet) and "tokens" (from the
            first token to the end).

    """

    request: Request
    opening: list[str]
    steps: list[Step]
    ended: bool
    phases: dict[str, float]


def story_of(
    records: Iterable[LogRecord], public_id: str, *, now: float | None = None
) -> RequestHistory | None:
    """Return what happened to one request; None if nothing is known of it.

    Args:
        records: of a decision log, or of the sidecar's memory; other requests are passed over.
        public_id: as the header `x-penstock-id` says it.
        now: driver seconds up to which what goes on is counted; only what has ended if None.

    """
    story = [record for record in records if record.id == public_id]
    arrival = next((r for r in story if isinstance(r.what, Arrived)), None)
    if arrival is None or not isinstance(arrival.what, Arrived):
        return None
    request = arrival.what.request
    steps = []
    seen_dispatch = False
    for record in story:
        words = _words(record, request, again=seen_dispatch)
        seen_dispatch = seen_dispatch or isinstance(record.what, Dispatch)
        if words:
            steps.append(Step(record.now - request.arrived_at, NAMES[type(record.what)], words))
    opening = _opening(arrival, request, public_id)
    return RequestHistory(request, opening, steps, _ended(story), _phases(story, now))


def explain(
    records: Iterable[LogRecord],
    public_id: str,
    *,
    so_far: Callable[[], Iterable[str]] = tuple,
    columns: int = 1_000,
) -> list[str]:
    """Return the story of one request, a line for each thing that happened; empty if unknown.

    Args:
        records: of a decision log, or of the sidecar's memory; other requests are passed over.
        public_id: as the header `x-penstock-id` says it.
        so_far: returns what else is known of a request that has not ended.
        columns: lines longer than this are broken between words.

    """
    story = story_of(records, public_id)
    if story is None:
        return []
    lines = [part for text in story.opening for part in wrap(text, columns)]
    lines.append("")
    for step in story.steps:
        since = f"+{step.after_s:.3f} s"
        for text in step.words:
            lines += wrap(text, columns, initial_indent=f"{since:>12}  ", subsequent_indent=_INDENT)
            since = ""
    if not story.ended:
        for text in ("It has not ended yet.", *so_far()):
            lines += wrap(text, columns, initial_indent=_INDENT, subsequent_indent=_INDENT)
    return lines


_INDENT = " " * 14


def _phases(story: Sequence[LogRecord], until: float | None) -> dict[str, float]:
    """Return the seconds of each phase; of several attempts, only the last one's sending counts."""
    phases: dict[str, float] = {}
    sent_at = first_at = None
    ended_at = until
    for record in story:
        what = record.what
        if isinstance(what, Decision | Abandoned):
            phases = {cause: what.why.waits[cause] for cause in WAITS if cause in what.why.waits}
        if isinstance(what, Dispatch):
            sent_at, first_at, ended_at = record.now, None, until
        elif isinstance(what, FirstToken):
            first_at = record.now
        elif isinstance(what, Throttled) or (isinstance(what, Failed) and what.retryable):
            sent_at = None
        elif isinstance(what, Completed | Cancelled | Failed):
            ended_at = record.now
    if sent_at is not None and ended_at is not None:
        phases["provider"] = (ended_at if first_at is None else first_at) - sent_at
        if first_at is not None:
            phases["tokens"] = ended_at - first_at
    return phases


def explain_window(
    records: Iterable[LogRecord], upstream: str = "", *, columns: int = 1_000
) -> list[str]:
    """Return a line for every move of the concurrency limit, oldest first; empty if there was none.

    Args:
        records: of a decision log, or of the sidecar's memory; other records are passed over.
        upstream: only this one's moves; all if empty.
        columns: lines longer than this are broken between words.

    """
    return [
        line
        for record in records
        if isinstance(record.what, WindowMoved) and upstream in ("", record.what.upstream)
        for line in wrap(_moved(record, record.what), columns, subsequent_indent=_INDENT)
    ]


def _moved(record: LogRecord, move: WindowMoved) -> str:
    moment = _moment(record, record.now)[:-4]
    figures = ", ".join(f"{name} {value:.4g}" for name, value in move.evidence.items())
    why = MOVES.get(move.because, move.because)
    return (
        f"{moment}  {move.upstream}: {_limit(move.before)} -> {_limit(move.after)}  "
        f"{move.because}: {why}" + (f" ({figures})" if figures else "")
    )


def _limit(window: float) -> str:
    return "no limit" if math.isinf(window) else f"{window:g}"


def _moment(record: LogRecord, at: float) -> str:
    """Return the calendar's time of a driver time, in UTC, to the millisecond."""
    header = record.header
    wall = header.started_unix_s + (at - header.started_at)
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]


def _ended(story: Sequence[LogRecord]) -> bool:
    last = story[-1].what
    if isinstance(last, Failed):
        return not last.retryable
    return isinstance(last, Completed | Cancelled | Abandoned | Reject)


def _opening(arrival: LogRecord, request: Request, public_id: str) -> list[str]:
    moment = _moment(arrival, request.arrived_at)
    tenant = f", tenant {request.tenant}" if request.tenant else ""
    route = f", route {request.route}" if request.route else ""
    estimate = request.estimate
    run, inside = arrival.header.run, request.inside
    limit = "no deadline"
    if math.isfinite(request.deadline):
        limit = f"deadline after {request.deadline - request.arrived_at:.3f} s"
    return [
        f"Request {public_id}: class {request.traffic_class}{tenant}, model {request.model}{route}",
        f"Arrived {moment} UTC, {limit}.",
        (
            f"Estimate: {estimate.p50_tokens:.0f} output tokens (p50), "
            f"{estimate.p90_tokens:.0f} (p90), from {estimate.source}; "
            f"{request.prompt_tokens} input tokens."
        ),
        *([] if inside is None else [f"Made inside {run}-{inside}, in whose place it may go."]),
    ]


def _words(record: LogRecord, request: Request, *, again: bool) -> list[str]:
    what = record.what
    if isinstance(what, Dispatch):
        return _dispatched(what, again=again)
    if isinstance(what, Defer):
        return _deferred(what, record.now)
    if isinstance(what, Reject):
        return _refused(what)
    if isinstance(what, FirstToken):
        return ["The first token came."]
    if isinstance(what, Completed):
        return [_completed(what, record, request)]
    if isinstance(what, Throttled):
        wish = "" if what.retry_after_s is None else f"; it asked for {what.retry_after_s:.1f} s"
        then = "" if what.retryable else " It is not tried again."
        return [f"The upstream refused it: {_CAUSES[what.cause.value]}{wish}.{then}"]
    if isinstance(what, Failed):
        then = "it may be tried again" if what.retryable else "it is not tried again"
        fault = "the upstream failed" if what.upstream_fault else "no fault of the upstream's"
        if what.reused:
            fault = "a connection that had served others ended"
        return [f"The attempt ended without a reply ({fault}); {then}."]
    if isinstance(what, Cancelled):
        return ["The caller went away, or a fallback took it on; whatever it held was freed."]
    if isinstance(what, Abandoned):
        return [_waited(what.why).capitalize(), _state(what.why)]
    return []


def _dispatched(what: Dispatch, *, again: bool) -> list[str]:
    why = what.why
    head = "Dispatched again" if again else "Dispatched"
    return [f"{head} to {what.upstream}: {_waited(why)}", _state(why), _slack(why)]


def _deferred(what: Defer, now: float) -> list[str]:
    why = what.why
    return [
        (
            f"Deferred for {what.until - now:.3f} s ({what.reason}; time {why.deferrals + 1}): "
            f"it stands on rung {why.rung}."
        ),
        _state(why),
    ]


def _refused(what: Reject) -> list[str]:
    why = what.why
    again = "a new try makes no sense"
    if what.retry_after_s is not None:
        again = f"a new try makes sense after {what.retry_after_s:.1f} s"
    reason = REASONS.get(what.reason, what.reason)
    return [
        (
            f"Refused ({what.reason}): {reason}. Rung {why.rung}, predicted cost "
            f"{what.request.cost_tokens:.0f} tokens; {again}."
        ),
        _waited(why).capitalize(),
        _state(why),
    ]


def _completed(what: Completed, record: LogRecord, request: Request) -> str:
    in_time = ""
    if math.isfinite(request.deadline):
        late_s = record.now - request.deadline
        in_time = ", in time" if late_s <= 0 else f", {late_s:.3f} s late"
    if what.output_tokens is None:
        return f"Completed{in_time}; how many tokens it had is unknown."
    source = "reported by the provider" if what.reported else "estimated from the text"
    ratio = what.output_tokens / request.cost_tokens
    return (
        f"Completed{in_time}: {what.output_tokens} output tokens ({source}), "
        f"{ratio:.2f} times the predicted."
    )


def _waited(why: Why) -> str:
    if why.waited_s < 0.0005 or not why.waits:
        return f"it had waited {why.waited_s:.3f} s." if why.waited_s >= 0.005 else "at once."
    parts = [
        f"{seconds:.3f} s because {WAITS.get(cause, cause)}"
        for cause, seconds in sorted(why.waits.items(), key=lambda item: -item[1])
        if seconds >= 0.0005
    ]
    others = f"; meanwhile {why.sent_meanwhile} of its class went" if why.sent_meanwhile else ""
    causes = ", ".join(parts) or "no cause was noted"
    return f"it had waited {why.waited_s:.3f} s: {causes}{others}."


def _state(why: Why) -> str:
    window = "no limit" if math.isinf(why.window) else f"a window of {why.window:g}"
    return (
        f"At that moment: severity {why.severity:.2f}, rung {why.rung}, {why.in_flight} in flight "
        f"under {window}, {why.backlog} waiting, deficit of its class "
        f"{why.deficit_tokens:.0f} tokens."
    )


def _slack(why: Why) -> str:
    service = f"service predicted at {why.service_p50_s:.3f} s (p50)"
    if math.isinf(why.slack_s):
        return f"No deadline pressed; {service}."
    if why.slack_s < 0:
        return f"By the p90 it was {-why.slack_s:.3f} s too late for its deadline; {service}."
    return f"By the p90 it had {why.slack_s:.3f} s to spare; {service}."
