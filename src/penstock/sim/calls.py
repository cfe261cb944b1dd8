"""Calls before anyone has seen them, and the chance that makes them.

Chance depends on (seed, stream, index) alone, not on how many draws came before: two policies that
send the same requests in a different order meet the same luck request by request, which makes their
difference mean something (common random numbers).
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import NormalDist

from penstock.core.model import TokenEstimate

_MASK = (1 << 64) - 1
_UNIT = 1.0 / (1 << 53)
_NORMAL = NormalDist()


def unit(seed: int, stream: int, index: int) -> float:
    """Return a number in (0, 1), always the same one for the same three whole numbers.

    Source:
        The finalizer of SplitMix64 (Steele, Lea & Flood, OOPSLA 2014), applied to each part.

    """
    mixed = _mix(_mix(_mix(seed) ^ stream) ^ index)
    return ((mixed >> 11) + 0.5) * _UNIT


def standard_normal(seed: int, stream: int, index: int) -> float:
    """Return a draw from N(0, 1), always the same one for the same three whole numbers."""
    return _NORMAL.inv_cdf(unit(seed, stream, index))


def normal_of(u: float) -> float:
    """Return the quantile of N(0, 1) for a draw u from [0, 1)."""
    return _NORMAL.inv_cdf(u or _UNIT)


def _mix(value: int) -> int:
    value = (value + 0x9E3779B97F4A7C15) & _MASK
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
    return value ^ (value >> 31)


BUCKET_RANGE_TOKENS: Mapping[str, tuple[int, int]] = {
    "short": (16, 64),
    "medium": (65, 256),
    "long": (257, 1024),
    "xlong": (1025, 4096),
}
"""From which lengths are drawn; ours, version 1 (PAPER.md's buckets with ends)."""


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What the scheduler learns of one request at its arrival."""

    traffic_class: str
    estimate: TokenEstimate
    deadline_s: float


@dataclass(slots=True)
class Item:
    """One call of a workload before anyone has seen it.

    Attributes:
        at: seconds from the start.
        output_tokens: the reply's true length.
        session: conversation; empty if none.
        deadline_s: its own, from submission; None for its bucket's.
        tenant: whom it is for.
        recorded: what a scheduler was told of it at the time; None if that is not known.

    """

    at: float
    output_tokens: int
    prompt_tokens: int = 0
    session: str = ""
    deadline_s: float | None = None
    tenant: str = ""
    recorded: Knowledge | None = None

    def moved_to(self, at: float) -> "Item":
        """Return the same call at another time."""
        return replace(self, at=at)
