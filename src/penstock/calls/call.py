"""What a request's body and headers say that the scheduler wants to know."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from penstock.calls.stated import stated
from penstock.core.model import TokenEstimate
from penstock.wire.endpoint import Kind

CLASS_HEADER = "x-penstock-class"
DEADLINE_HEADER = "x-penstock-deadline-ms"
TENANT_HEADER = "x-penstock-tenant"
SESSION_HEADER = "x-penstock-session"
ROUTE_HEADER = "x-penstock-route"
TOKENS_HEADER = "x-penstock-tokens"
HINT_HEADERS = (
    CLASS_HEADER,
    DEADLINE_HEADER,
    TENANT_HEADER,
    SESSION_HEADER,
    ROUTE_HEADER,
    TOKENS_HEADER,
)

_CAPS: dict[Kind, tuple[str, ...]] = {
    Kind.CHAT: ("max_completion_tokens", "max_tokens"),
    Kind.COMPLETIONS: ("max_tokens",),
    Kind.RESPONSES: ("max_output_tokens",),
    Kind.MESSAGES: ("max_tokens",),
}
_LEGACY_COMPLETION_CAP = 16
"""What OpenAI's /v1/completions assumes when `max_tokens` is missing."""


@dataclass(slots=True)  # not frozen: one is made a call, and freezing is most of the cost
class Call:
    """Facts of one API call; no text of it.

    Attributes:
        model: as the body names it; empty if it does not.
        max_tokens: the most that all choices together may have; None if unlimited.
        stream: whether the reply comes as server-sent events.
        stream_usage: whether a streamed reply will end with its usage.

    """

    model: str = ""
    max_tokens: int | None = None
    stream: bool = False
    stream_usage: bool = True


@dataclass(frozen=True, slots=True)
class Hints:
    """What the caller asks of the scheduler, by headers; None where not said."""

    traffic_class: str | None = None
    deadline_s: float | None = None
    tenant: str | None = None
    session: str | None = None
    route: str | None = None
    tokens: TokenEstimate | None = None


def call_of(kind: Kind, body: Mapping[str, Any]) -> Call:
    """Return the facts of a body; whatever has a wrong type counts as not said.

    It is the provider's business to complain of a bad body: the caller gets its error, not ours.
    """
    model = body.get("model")
    options = body.get("stream_options")
    asked = isinstance(options, dict) and options.get("include_usage") is True
    return Call(
        model=model if isinstance(model, str) else "",
        max_tokens=_cap(kind, body),
        stream=body.get("stream") is True,
        stream_usage=asked or kind not in (Kind.CHAT, Kind.COMPLETIONS),
    )


def hints_of(headers: Mapping[str, str]) -> Hints:
    """Return the caller's hints.

    Args:
        headers: with names in lower case.

    Raises:
        ValueError: a deadline that is not a positive number of milliseconds, or tokens that are
            no length of a reply.

    """
    deadline = headers.get(DEADLINE_HEADER)
    tokens = headers.get(TOKENS_HEADER)
    return Hints(
        traffic_class=headers.get(CLASS_HEADER) or None,
        deadline_s=None if deadline is None else _deadline_s(deadline),
        tenant=headers.get(TENANT_HEADER),
        session=headers.get(SESSION_HEADER),
        route=headers.get(ROUTE_HEADER),
        tokens=None if tokens is None else _stated(tokens),
    )


def _deadline_s(text: str) -> float:
    try:
        milliseconds = float(text)
    except ValueError:
        milliseconds = math.nan
    if not 0 < milliseconds < math.inf:
        raise ValueError(
            f"{DEADLINE_HEADER}={text[:40]!r} is no deadline: it must be a number of "
            "milliseconds above 0, counted from now; was a point in time given?"
        )
    return milliseconds / 1000


def _stated(text: str) -> TokenEstimate:
    p50, comma, p90 = text.partition(",")
    try:
        return stated((float(p50), float(p90 if comma else p50)))
    except ValueError:
        raise ValueError(
            f"{TOKENS_HEADER}={text[:40]!r} is no length of a reply: it must be a count of output "
            "tokens, at least 1, or a median and a 90th percentile such as 40,90; were the two "
            "swapped?"
        ) from None


def _cap(kind: Kind, body: Mapping[str, Any]) -> int | None:
    if kind is Kind.EMBEDDINGS:
        return 1  # no output tokens at all; 1 is the least that an estimate can say
    cap = None
    for name in _CAPS.get(kind, ()):
        if cap is None and name in body:
            cap = _count(body[name])
    if cap is None and kind is Kind.COMPLETIONS:
        cap = _LEGACY_COMPLETION_CAP
    if cap is None:
        return cap
    if kind is Kind.COMPLETIONS:
        cap *= prompts_of(body.get("prompt"))
    if not ("n" in body or "best_of" in body):
        return cap
    return cap * max(1, _count(body.get("n")) or 1, _count(body.get("best_of")) or 1)


def prompts_of(prompt: object) -> int:
    """Return how many prompts a completions body has; each gets as many replies as one would.

    A list of texts or of token lists is one prompt an item; a list of tokens is one prompt.
    """
    several = isinstance(prompt, list) and prompt and isinstance(prompt[0], str | list)
    return len(prompt) if several else 1  # type: ignore[arg-type]


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value > 0 else None
