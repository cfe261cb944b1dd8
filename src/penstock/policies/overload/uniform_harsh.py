"""One early threshold for every request, whatever it costs."""

from collections.abc import Mapping

from penstock.core.ladder import Ladder

DEFER_AT = dict.fromkeys(("short", "medium", "long", "xlong"), 0.4)
SHED_AT = dict.fromkeys(("short", "medium", "long", "xlong"), 0.55)


def uniform_harsh(
    *,
    defer_at: Mapping[str, float] | None = None,
    shed_at: Mapping[str, float] | None = None,
    returns: int = 4,
    delay_share: float = 0.3,
) -> Ladder:
    """Return a ladder with the same early thresholds on every rung.

    Source:
        The paper's uniform-harsh policy; the thresholds are ours.

    """
    return Ladder(
        DEFER_AT if defer_at is None else defer_at,
        SHED_AT if shed_at is None else shed_at,
        returns,
        delay_share,
    )
