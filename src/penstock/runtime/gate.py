"""The public gate: a request goes in, and a slot comes out when it may be sent."""

import random
from types import TracebackType
from typing import Any

from penstock.calls.factory import RequestFactory
from penstock.calls.spec import RequestSpec
from penstock.core.events import Draining
from penstock.runtime.driver import Driver
from penstock.runtime.slot import Slot


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

    def admit(self, spec: RequestSpec | None = None, /, **words: Any) -> "Admission":
        """Return a context that waits for a slot on entry and gives it back on exit.

        Args:
            spec: what is known of the request; or its fields as keywords.
            words: fields of `RequestSpec`.

        Raises:
            Refused: on entry, if the scheduler says no.
            ValueError: on entry, if the spec names an unknown class or an impossible time.

        """
        return Admission(self, spec_of(spec, words))

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


class Admission:
    """The context of one `Gate.admit`; used once."""

    __slots__ = ("_gate", "_slot", "_spec")

    def __init__(self, gate: Gate, spec: RequestSpec) -> None:
        """Nothing is submitted until it is entered."""
        self._gate = gate
        self._spec = spec
        self._slot: Slot | None = None

    async def __aenter__(self) -> Slot:
        """Wait for the slot."""
        self._slot = await self._gate.enter(self._spec)
        return self._slot

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the slot back, by what happened; there is no await here to be cancelled at."""
        if self._slot is not None:
            self._slot.leave(error)
