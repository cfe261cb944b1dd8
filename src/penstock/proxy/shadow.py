"""Asks beside the traffic what other configurations would have done with it.

Nothing of it runs on the loop: a process of the lowest priority reads the end of the decision log,
and its answer is kept. A request costs nothing; what dies in there is told, and asked again later.
"""

import asyncio
import json
import logging
import sys
import time
from typing import Any

from penstock.proxy.config.models import Config

logger = logging.getLogger("penstock.proxy")

LOOK_S = 1.0
FIRST_LOOK_S = 60.0
"""After the start, or every_s if that is sooner: what came by then may already tell something."""
BYTES_PER_REQUEST = 3_000
"""At most, of the log: arrival, dispatch, first token, completion and a timer take 1,800."""
LONGEST_S = 1_800.0
ANSWER_BYTES_AT_MOST = 4 << 20


class Shadow:
    """Keeps the latest answer.

    Attributes:
        latest: the answer of `penstock.twin.shadow`, with `asked_unix_s`; None before the first.

    """

    def __init__(self, config: Config) -> None:
        """Ask nothing yet."""
        self.latest: dict[str, Any] | None = None
        self.take(config)

    def shown(self) -> dict[str, Any] | None:
        """Return the latest answer, or that the first is still to come; None if it is off."""
        if self.latest is None and self._on:
            first_s = min(FIRST_LOOK_S, self._every_s)
            return {"soon": f"No answer yet: the first is asked for {first_s:g} s after the start."}
        return self.latest

    def take(self, config: Config) -> None:
        """Ask by this configuration from now on."""
        table = config.shadow
        self._log = config.log.decisions_path
        self._on = bool(self._log) and table.enabled
        self._question = {
            "log": self._log,
            "policies": {name: policy.table() for name, policy in table.policies.items()},
            "most_bytes": BYTES_PER_REQUEST * table.requests,
            "most_calls": table.requests,
        }
        self._every_s = table.every_s
        self._due_s = min(FIRST_LOOK_S, table.every_s)

    async def keep_asking(self) -> None:
        """Ask when it is due, until cancelled."""
        while True:
            await asyncio.sleep(LOOK_S)
            self._due_s -= LOOK_S
            if self._on and self._due_s <= 0:
                self._due_s = self._every_s
                await self._ask()

    async def _ask(self) -> None:
        started = time.time()
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "penstock.twin.shadow",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            async with asyncio.timeout(LONGEST_S):
                said, complaint = await process.communicate(json.dumps(self._question).encode())
        except TimeoutError:
            said, complaint = b"", b"it took too long"
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode or not said or len(said) > ANSWER_BYTES_AT_MOST:
            reason = complaint.decode(errors="replace").strip().splitlines()[-1:] or ["no answer"]
            logger.warning("shadow: %s; it is asked again in %g s", reason[0], self._every_s)
            return
        self.latest = {"asked_unix_s": started, **json.loads(said)}
