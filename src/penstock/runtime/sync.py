"""The gate for plain threads. They share one scheduler with coroutines, without a helper loop.

The driver can be told from any thread, so a blocking caller needs only something to wait on: about
10 us a call, where a bridge into a background event loop costs two thread switches (0.1 ms) and
deadlocks when sync code runs on the loop's own thread.
"""

from types import TracebackType
from typing import Any

from penstock.calls.spec import RequestSpec
from penstock.runtime.gate import AnyGate, spec_of
from penstock.runtime.slot import SyncSlot


class SyncGate(AnyGate):
    """Lets threads through when the scheduler says so; the twin of `Gate`.

    Its driver must have a clock that does not depend on the calling thread (`ThreadClock`).
    """

    def admit(self, spec: RequestSpec | None = None, /, **words: Any) -> "SyncAdmission":
        """Return a context that blocks for a slot on entry and gives it back on exit.

        Raises:
            Refused: on entry, if the scheduler says no.
            ValueError: on entry, if the spec names an unknown class or an impossible time.

        """
        return SyncAdmission(self, spec_of(spec, words))

    def enter(self, spec: RequestSpec) -> SyncSlot:
        """Block for a slot that the caller will end by `settle`, `fail` or `cancel`.

        Raises:
            Refused: the scheduler says no.

        """
        slot = SyncSlot(self.driver, self.factory, spec, self._chance)
        slot._submit()  # noqa: SLF001 - the gate is the only one who submits
        return slot


class SyncAdmission:
    """The context of one `SyncGate.admit`; used once."""

    __slots__ = ("_gate", "_slot", "_spec")

    def __init__(self, gate: SyncGate, spec: RequestSpec) -> None:
        """Nothing is submitted until it is entered."""
        self._gate = gate
        self._spec = spec
        self._slot: SyncSlot | None = None

    def __enter__(self) -> SyncSlot:
        """Block for the slot."""
        self._slot = self._gate.enter(self._spec)
        return self._slot

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Give the slot back, by what happened."""
        if self._slot is not None:
            self._slot.leave(error)
