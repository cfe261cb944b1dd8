"""What a caller itself says of the length of a reply: it goes before all that is guessed."""

from penstock.core.model import TokenEstimate

STATED = "caller"
"""The source of an estimate that the caller stated."""


def stated(tokens: TokenEstimate | float | tuple[float, float]) -> TokenEstimate:
    """Return the caller's word as an estimate.

    Args:
        tokens: output tokens: a count, or a median and a 90th percentile; an estimate is
            returned as it is.

    Raises:
        ValueError: it is neither, or no length of a reply.

    """
    if isinstance(tokens, TokenEstimate):
        return tokens
    pair = tokens if isinstance(tokens, tuple) else (tokens, tokens)
    try:
        p50, p90 = pair
        return TokenEstimate(p50, p90, STATED)
    except (TypeError, ValueError):
        raise ValueError(
            f"tokens={tokens!r} is no length of a reply: it must be a count of output tokens, at "
            "least 1, or a median and a 90th percentile such as (40, 90); were the two swapped?"
        ) from None


def capped(estimate: TokenEstimate, max_tokens: int | None) -> TokenEstimate:
    """Return the estimate with no quantile above what the call allows.

    A block's word covers many calls; one of them may be an embedding, or ask for less.
    """
    if max_tokens is None or max_tokens >= estimate.p90_tokens:
        return estimate
    cap = max(max_tokens, 1)
    return TokenEstimate(min(estimate.p50_tokens, cap), cap, estimate.source)
