"""The cost ladder and its three controls: one ladder each, with thresholds of its own."""

from collections.abc import Callable, Mapping

from penstock.core.ladder import Ladder

Thresholds = Mapping[str, float]
"""Severity by rung."""
_RUNGS = ("short", "medium", "long", "xlong")


def _ladder(doc: str, defers: Thresholds, sheds: Thresholds) -> Callable[..., Ladder]:
    """Return the policy that is a ladder with these thresholds unless others are given."""

    def ladder(
        *,
        defer_at: Mapping[str, float] | None = None,
        shed_at: Mapping[str, float] | None = None,
        returns: int = 4,
        delay_share: float = 0.3,
    ) -> Ladder:
        return Ladder(
            defers if defer_at is None else defer_at,
            sheds if shed_at is None else shed_at,
            returns,
            delay_share,
        )

    ladder.__doc__ = doc
    return ladder


cost_ladder = _ladder(
    """The dearer a request, the earlier it is deferred and shed; the cheapest is never shed.

    Source:
        The paper's cost ladder; its rungs are the paper's buckets, the thresholds ours.

    """,
    {"xlong": 0.65, "long": 0.85, "medium": 0.95},
    {"xlong": 0.75, "long": 0.92, "medium": 0.98},
)
reverse_ladder = _ladder(
    """The cost ladder with its rungs mirrored: the cheapest request is shed first.

    Source:
        The control of the paper's overload comparison; thresholds mirrored from ours.

    """,
    {"short": 0.65, "medium": 0.85, "long": 0.95},
    {"short": 0.75, "medium": 0.92, "long": 0.98},
)
uniform_harsh = _ladder(
    """One early threshold for every request, whatever it costs.

    Source:
        The paper's uniform-harsh policy; the thresholds are ours.

    """,
    dict.fromkeys(_RUNGS, 0.4),
    dict.fromkeys(_RUNGS, 0.55),
)
uniform_mild = _ladder(
    """One late threshold for every request, whatever it costs.

    Source:
        The paper's uniform-mild policy; the thresholds are ours.

    """,
    dict.fromkeys(_RUNGS, 0.75),
    dict.fromkeys(_RUNGS, 0.85),
)
