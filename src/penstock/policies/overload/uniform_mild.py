"""One late threshold for every request, whatever it costs."""

from collections.abc import Mapping

from penstock.core.ladder import Ladder

DEFER_AT = {"short": 0.85, "medium": 0.85, "long": 0.85, "xlong": 0.85}
SHED_AT = {"short": 0.95, "medium": 0.95, "long": 0.95, "xlong": 0.95}


def uniform_mild(
    *,
    defer_at: Mapping[str, float] | None = None,
    shed_at: Mapping[str, float] | None = None,
    delay_s: float = 0.5,
    returns: int = 3,
) -> Ladder:
    """Return a ladder with the same late thresholds on every rung.

    Source:
        The paper's uniform-mild policy; the thresholds are ours.

    """
    return Ladder(
        DEFER_AT if defer_at is None else defer_at,
        SHED_AT if shed_at is None else shed_at,
        delay_s,
        returns,
    )
