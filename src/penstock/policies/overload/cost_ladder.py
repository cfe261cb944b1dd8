"""The cost ladder: the dearer a request, the earlier it is deferred and shed."""

from collections.abc import Mapping

from penstock.core.ladder import Ladder

DEFER_AT = {"xlong": 0.60, "long": 0.80, "medium": 0.95}
SHED_AT = {"xlong": 0.75, "long": 0.90}


def cost_ladder(
    *,
    defer_at: Mapping[str, float] | None = None,
    shed_at: Mapping[str, float] | None = None,
    delay_s: float = 0.5,
    returns: int = 3,
) -> Ladder:
    """Return the ladder; its cheapest rung is on neither list, so it is never shed.

    Source:
        The paper's cost ladder; its rungs are the paper's buckets, the thresholds ours.

    """
    return Ladder(
        DEFER_AT if defer_at is None else defer_at,
        SHED_AT if shed_at is None else shed_at,
        delay_s,
        returns,
    )
