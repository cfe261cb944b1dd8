"""Bounded samples of many rows: a training takes so many, whatever the file's length."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from penstock.predict.train.datasets import DatasetRow

TRAINED_MAX = 20_000
"""Rows (or prompts) that a training takes. Time and memory grow with them: a run on 200,000
stood at 3.9 GB after 13 minutes."""


@dataclass(frozen=True, slots=True)
class Sample:
    """Rows taken of more.

    Attributes:
        rows: in the order in which they came.
        seen: how many came.

    """

    rows: list[DatasetRow]
    seen: int

    @property
    def whole(self) -> bool:
        """Return whether nothing was left out."""
        return len(self.rows) == self.seen


def spread(rows: Iterable[DatasetRow], most: int, *, by: Literal["row", "prompt"]) -> Sample:
    """Return at most `most` rows, or all rows of at most `most` prompts, spread evenly.

    Chance decides, and always alike: the lowest checksums of row numbers or prompts stay.

    Source:
        Bottom-k sketches: Cohen & Kaplan, PODC 2007.

    """
    kept: dict[int, list[tuple[int, DatasetRow]]] = {}
    marks: list[int] = []  # a heap, the highest mark first
    seen = 0
    for seen, row in enumerate(rows, start=1):
        mark = _mark(row.prompt if by == "prompt" else str(seen))
        if mark in kept:
            kept[mark].append((seen, row))
            continue
        if len(marks) == most and mark > -marks[0]:
            continue
        kept[mark] = [(seen, row)]
        heapq.heappush(marks, -mark)
        if len(marks) > most:
            del kept[-heapq.heappop(marks)]
    numbered = sorted((entry for entries in kept.values() for entry in entries), key=_number)
    return Sample([row for _, row in numbered], seen)


def _number(entry: tuple[int, DatasetRow]) -> int:
    """Return a row's number in the files, by which rows keep their order."""
    return entry[0]


def _mark(key: str) -> int:
    digest = hashlib.blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)
