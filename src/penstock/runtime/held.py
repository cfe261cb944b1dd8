"""Which slots the running task or thread holds: what it waits for is nested in the innermost.

A context variable, so tasks and `asyncio.to_thread` inherit it from whoever started them.
"""

from contextvars import ContextVar
from typing import TYPE_CHECKING
from weakref import ref

if TYPE_CHECKING:
    from penstock.runtime.slot import Hold

_HELD: ContextVar[tuple["ref[Hold]", ...]] = ContextVar("penstock_held", default=())


def holder_of(driver: object) -> int | None:
    """Return the id of the request whose slot of that driver is held here; None if none is."""
    for each in reversed(_HELD.get()):
        slot = each()
        if slot is not None and slot.driver is driver and not slot.ended:
            return slot.request.id
    return None


def holds(slot: "Hold") -> None:
    """Note that the running task or thread holds the slot; ended ones are forgotten."""
    held = _HELD.get()
    live = tuple(each for each in held if (one := each()) is not None and not one.ended)
    _HELD.set((*live, ref(slot)))
