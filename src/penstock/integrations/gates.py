"""Gates that know what the surrounding `penstock.request` block asks for."""

from typing import Any

from penstock.calls.hints import HINTS, NO_HINTS
from penstock.calls.spec import RequestSpec
from penstock.integrations.context import CURRENT
from penstock.runtime.gate import Gate, SyncGate
from penstock.runtime.slot import Slot, SyncSlot


def completed(words: dict[str, Any]) -> dict[str, Any]:
    """Return the keywords of a `RequestSpec`, with the block's wishes where they say nothing.

    A call with a deadline of its own stops waiting when that has passed.

    Raises:
        TypeError: both `class_` and `traffic_class` were given.

    """
    if "class_" in words:
        if "traffic_class" in words:
            raise TypeError("give class_ or traffic_class, not both: they are the same")
        words["traffic_class"] = words.pop("class_")
    asked = CURRENT.get()
    if asked is not NO_HINTS:
        for name in HINTS:
            value = getattr(asked, name)
            if value is not None:
                words.setdefault(name, value)
    deadline_s = words.get("deadline_s")
    if deadline_s is not None:
        words.setdefault("expires_in_s", deadline_s)
    return words


class ProgramGate(Gate):
    """A gate for coroutines."""

    def admit(self, spec: RequestSpec | None = None, /, **words: Any) -> Slot:
        """Return a slot that is waited for on entry and given back on exit; it is entered once.

        Its times count from this call on.

        Args:
            spec: taken as it is; or its fields as keywords, completed by the block's.
            words: fields of `RequestSpec`; `class_` is `traffic_class`.

        Raises:
            Refused: on entry, if the scheduler says no.
            ValueError: the spec names an unknown class or an impossible time.

        """
        return super().admit(spec, **(completed(words) if spec is None else words))


class ProgramSyncGate(SyncGate):
    """A gate for threads."""

    def admit(self, spec: RequestSpec | None = None, /, **words: Any) -> SyncSlot:
        """Return a slot that is waited for on entry, in this thread; see `ProgramGate.admit`."""
        return super().admit(spec, **(completed(words) if spec is None else words))
