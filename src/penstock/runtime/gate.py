"""The public gates: a request goes in, and a slot comes out when it may be sent.

Threads share one scheduler with coroutines, without a helper loop: the driver can be told from any
thread, so a blocking caller needs only something to wait on. That is about 10 us a call, where a
bridge into a background event loop costs two thread switches (0.1 ms) and deadlocks when sync code
runs on the loop's own thread.
"""

import random
from typing import Any

from penstock.calls.factory import RequestFactory
from penstock.calls.spec import RequestSpec
from penstock.core.events import Draining
from penstock.runtime.driver import Driver
from penstock.runtime.slot import Slot, SyncSlot


def spec_of(spec: RequestSpec | None, words: dict[str, Any]) -> RequestSpec:
    """Return the spec that was given as such or as keywords.

    Raises:
        TypeError: both were given, or a keyword is no field of `RequestSpec`.

    """
    if spec is None:
        return RequestSpec(**words)
    if words:
        raise TypeError(f"give a RequestSpec or keywords ({', '.join(sorted(words))}), not both")
    return spec


class AnyGate:
    """What the gates for coroutines and for threads have in common.

    Args:
        driver: runs the scheduler.
        factory: makes requests of specs.
        chance: draws the jitter of back-offs.

    """

    def __init__(
        self, driver: Driver, factory: RequestFactory, *, chance: random.Random | None = None
    ) -> None:
        """Wire it up."""
        self.driver = driver
        self.factory = factory
        self._chance = chance if chance is not None else random.Random()

    def renew(self) -> None:
        """Draw other jitter than the parent does, in a forked child: they share the provider."""
        self._chance.seed()


class Gate(AnyGate):
    """Lets coroutines through when the scheduler says so.

    ```python
    async with gate.admit(traffic_class="batch", max_tokens=500) as slot:
        reply = await call(slot.upstream)
        slot.settle(Usage(reply.output_tokens))
    ```
    """

    def admit(self, spec: RequestSpec | None = None, /, **words: Any) -> Slot:
        """Return a slot that is waited for on entry and given back on exit; it is entered once.

        Its times count from this call on.

        Args:
            spec: what is known of the request; or its fields as keywords.
            words: fields of `RequestSpec`.

        Raises:
            Refused: on entry, if the scheduler says no.
            ValueError: the spec names an unknown class or an impossible time.

        """
        return self.prepare(spec_of(spec, words))

    async def enter(self, spec: RequestSpec) -> Slot:
        """Wait for a slot that the caller will end by `settle`, `fail` or `cancel`.

        For callers whose slot outlives a block, such as a streamed reply. Prefer `admit`.

        Raises:
            Refused: the scheduler says no.

        """
        return await self.prepare(spec).__aenter__()

    def prepare(self, spec: RequestSpec) -> Slot:
        """Return a slot with its id; entered as a context, it is waited for and given back."""
        return Slot(self.driver, self.factory, spec, self._chance)

    def drain(self) -> None:
        """Refuse new work and everything that waits; what flies may finish."""
        self.driver.tell(Draining())


class SyncGate(AnyGate):
    """Lets threads through when the scheduler says so; the twin of `Gate`.

    Its driver must have a clock that does not depend on the calling thread (`ThreadClock`).
    """

    def admit(self, spec: RequestSpec | None = None, /, **words: Any) -> SyncSlot:
        """Return a slot that is waited for on entry, in this thread, and given back on exit.

        Raises:
            Refused: on entry, if the scheduler says no.
            ValueError: the spec names an unknown class or an impossible time.

        """
        return SyncSlot(self.driver, self.factory, spec_of(spec, words), self._chance)

    def enter(self, spec: RequestSpec) -> SyncSlot:
        """Block for a slot that the caller will end by `settle`, `fail` or `cancel`.

        Raises:
            Refused: the scheduler says no.

        """
        return self.admit(spec).__enter__()
