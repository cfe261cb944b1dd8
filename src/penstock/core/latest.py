"""Memory by names that callers choose, and so bounded."""

from typing import TypeVar

V = TypeVar("V")


class Latest(dict[str, V]):
    """The values of the names that were put last, at most `most` of them."""

    __slots__ = ("_most",)

    def __init__(self, most: int) -> None:
        """Start empty."""
        super().__init__()
        self._most = most

    def put(self, name: str, value: V) -> None:
        """Put a name last; of too many the first is forgotten."""
        self.pop(name, None)
        self[name] = value
        while len(self) > self._most:
            self.pop(next(iter(self)), None)  # another thread may have done so
