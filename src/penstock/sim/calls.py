"""Calls before anyone has seen them, and what a scheduler may be told of one."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from penstock.core.model import TokenEstimate

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
