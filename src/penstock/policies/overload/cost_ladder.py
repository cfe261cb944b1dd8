"""The cost ladder: the dearer a request, the earlier it is deferred and shed."""

from collections.abc import Mapping

from penstock.core.ladder import Ladder

DEFER_AT = {"xlong": 0.65, "long": 0.85, "medium": 0.95}
SHED_AT = {"xlong": 0.75, "long": 0.92, "medium": 0.98}


def cost_ladder(
    *,
    defer_at: Mapping[str, float] | None = None,
    shed_at: Mapping[str, float] | None = None,
    returns: int = 4,
    delay_share: float = 0.3,
) -> Ladder:
    """Return the ladder; its cheapest rung is on neither list, so it is never shed.

    Source:
        The paper's cost ladder; its rungs are the paper's buckets, the thresholds ours.

    """
    return Ladder(
        DEFER_AT if defer_at is None else defer_at,
        SHED_AT if shed_at is None else shed_at,
        returns,
        delay_share,
    )
