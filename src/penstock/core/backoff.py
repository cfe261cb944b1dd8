"""How long to wait before the next try: one rule for requests, circuits and outliers."""

REQUEST_BASE_S, REQUEST_CAP_S = 0.5, 16.0
LEAST_S = 0.05
"""No refused request goes back to its refuser sooner, whatever explains the refusal."""


def backoff_s(tries: int, fraction: float, *, base_s: float, cap_s: float) -> float:
    """Return the wait after so many failed tries in a row, in seconds.

    Args:
        tries: 1 or more.
        fraction: of the ceiling, in [0, 1]: drawn by the driver for full jitter, 1 for none.
        base_s: the ceiling after the first try; it doubles with each further one.
        cap_s: the highest ceiling.

    Source:
        Full jitter: Brooker, "Exponential Backoff and Jitter", AWS Architecture Blog, 2015.

    """
    ceiling_s = min(cap_s, base_s * 2.0 ** min(tries - 1, 30))
    return max(LEAST_S, fraction * ceiling_s)
