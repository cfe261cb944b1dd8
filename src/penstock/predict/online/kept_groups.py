"""What is known of so many groups: a bounded dictionary that one-off names cannot flush."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")
GROUPS_MAX = 1000
_ON_TRIAL = 4  # one place in so many, beside the others, is for names used once


class KeptGroups(Generic[T]):
    """Keeps the groups that are used, within a limit; of those the longest unused goes first.

    A name used for the first time is on trial: it can push out others on trial, but no group
    that was used again. Callers make one-off names easily (a route derived from a system prompt
    with a customer's name in it), and they would otherwise flush what took days to learn.

    Source:
        Segmented LRU; Karedla, Love & Wherry, IEEE Computer 1994.

    """

    def __init__(self, limit: int = GROUPS_MAX) -> None:
        """Keep `limit` groups used more than once, and a quarter as many used once."""
        self._limit = limit
        self._trials = max(1, limit // _ON_TRIAL)
        self._proven: OrderedDict[str, T] = OrderedDict()
        self._trial: OrderedDict[str, T] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._proven or name in self._trial

    def __len__(self) -> int:
        return len(self._proven) + len(self._trial)

    def get(self, name: str) -> T | None:
        """Return a group, or None; this is no use of it."""
        found = self._proven.get(name)
        return self._trial.get(name) if found is None else found

    def use(self, name: str, make: Callable[[], T]) -> T:
        """Return a group, made by `make` if there is none."""
        found = self._proven.get(name)
        if found is not None:
            self._proven.move_to_end(name)
            return found
        found = self._trial.pop(name, None)
        if found is not None:
            self.put(name, found)
            return found
        made = self._trial[name] = make()
        if len(self._trial) > self._trials:
            self._trial.popitem(last=False)
        return made

    def put(self, name: str, group: T) -> None:
        """Set a group, as one that is used."""
        self._trial.pop(name, None)
        self._proven[name] = group
        self._proven.move_to_end(name)
        if len(self._proven) > self._limit:
            self._proven.popitem(last=False)

    def items(self) -> Iterator[tuple[str, T]]:
        """Yield names and groups, longest unused first, those on trial before all."""
        yield from self._trial.items()
        yield from self._proven.items()
