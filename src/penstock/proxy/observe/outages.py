"""Says in the log that an upstream is out, why and until when, and that it is back."""

import asyncio
import logging
from collections.abc import Callable

from penstock.core.snapshot import Snapshot

logger = logging.getLogger("penstock.proxy")

LOOK_S = 1.0
OUT_S = 5.0
"""Shorter pauses are everyday life; callers hardly notice them."""


class Outages:
    """Looks at the upstreams' pauses now and then."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        """Nothing has been said yet."""
        self._snapshot = snapshot
        self._told: dict[str, str] = {}

    async def keep_looking(self) -> None:
        """Look every `LOOK_S`, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self.look()

    def look(self) -> None:
        """Log what has changed since the last look."""
        state = self._snapshot()
        for name, upstream in state.upstreams.items():
            longest = max(upstream.open, key=lambda pause: pause.until, default=None)
            told = self._told.get(name)
            if longest is None:
                if told is not None and not upstream.probation:
                    del self._told[name]
                    logger.info("upstream %s is used again", name)
                continue
            left_s = longest.until - state.now
            if told != longest.cause and left_s >= OUT_S:
                self._told[name] = longest.cause
                logger.warning(
                    "upstream %s is out (%s): the next attempt in %.0f s; "
                    "`penstock lift %s` tries it at once",
                    name,
                    longest.cause,
                    left_s,
                    name,
                )
