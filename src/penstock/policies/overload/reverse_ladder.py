"""The ladder upside down, as a control: the cheapest request is shed first."""

from collections.abc import Mapping

from penstock.core.ladder import Ladder

DEFER_AT = {"short": 0.65, "medium": 0.85, "long": 0.95}
SHED_AT = {"short": 0.75, "medium": 0.92, "long": 0.98}


def reverse_ladder(
    *,
    defer_at: Mapping[str, float] | None = None,
    shed_at: Mapping[str, float] | None = None,
    returns: int = 4,
    delay_share: float = 0.3,
) -> Ladder:
    """Return the cost ladder with its rungs mirrored.

    Source:
        The control of the paper's overload comparison; thresholds mirrored from ours.

    """
    return Ladder(
        DEFER_AT if defer_at is None else defer_at,
        SHED_AT if shed_at is None else shed_at,
        returns,
        delay_share,
    )
