"""Which upstream holds what an id names: a response, a conversation, a file, a batch."""

from collections.abc import Iterable

from penstock.core.model import Latest


class Holders:
    """Remembers who made what: the last `most` ids, for `keep_s` seconds after their last use."""

    def __init__(self, most: int, keep_s: float) -> None:
        """Know nothing yet."""
        self._keep_s = keep_s
        self._known: Latest[tuple[str, float]] = Latest(most)

    def __len__(self) -> int:
        """How many ids are remembered."""
        return len(self._known)

    def note(self, ids: Iterable[str], upstream: str, *, now: float) -> None:
        """Note that an upstream has what these ids name.

        The first to have it is its holder: an answer may quote an id that another has made.
        """
        known = self._known
        for id_ in ids:
            found = known.get(id_)
            holder = upstream if found is None or found[1] <= now else found[0]
            known.put(id_, (holder, now + self._keep_s))

    def of(self, ids: Iterable[str], *, now: float) -> str:
        """Return the upstream that holds the first of these ids that is known; empty for none."""
        for id_ in ids:
            found = self._known.get(id_)
            if found is None:
                continue
            if found[1] <= now:
                del self._known[id_]
                continue
            self.note((id_,), found[0], now=now)
            return found[0]
        return ""

    def keep(self, upstreams: Iterable[str]) -> None:
        """Forget what all others hold, as they are gone from the configuration."""
        left = frozenset(upstreams)
        self.forget([id_ for id_, held in self._known.items() if held[0] not in left])

    def forget(self, ids: Iterable[str]) -> None:
        """Forget ids that name nothing any more at their holder: the next call asks everywhere."""
        for id_ in ids:
            self._known.pop(id_, None)
