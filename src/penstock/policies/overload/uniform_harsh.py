"""One early threshold for every request, whatever it costs."""

from collections.abc import Mapping

from penstock.core.ladder import Ladder

DEFER_AT = {"short": 0.40, "medium": 0.40, "long": 0.40, "xlong": 0.40}
SHED_AT = {"short": 0.55, "medium": 0.55, "long": 0.55, "xlong": 0.55}


def uniform_harsh(
    *,
    defer_at: Mapping[str, float] | None = None,
    shed_at: Mapping[str, float] | None = None,
    delay_s: float = 0.5,
    returns: int = 3,
) -> Ladder:
    """Return a ladder with the same early thresholds on every rung.

    Source:
        The paper's uniform-harsh policy; the thresholds are ours.

    """
    return Ladder(
        DEFER_AT if defer_at is None else defer_at,
        SHED_AT if shed_at is None else shed_at,
        delay_s,
        returns,
    )
