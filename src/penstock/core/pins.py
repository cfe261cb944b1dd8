"""What an operator holds at a value for a while, whatever was learnt or configured."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from penstock.core.bounds import FARTHEST_S
from penstock.core.events import Pinned
from penstock.core.model import WEIGHT, TrafficClass
from penstock.core.rule import Rule, shown
from penstock.core.tickets import Tickets
from penstock.errors import ProtocolError

_WINDOW = Rule(low=1, whole=True, why="for below 1 nothing is ever sent: pin a pause for that")


@dataclass(slots=True)
class Pins:
    """The pins that hold now; each ends by itself.

    Attributes:
        ends_at: driver seconds at which the first of them ends; inf if there is none.

    """

    tickets: Tickets
    classes: Mapping[str, TrafficClass]
    ends_at: float = math.inf
    _held: dict[tuple[str, str], Pinned] = field(default_factory=dict)

    def shown(self) -> tuple[Pinned, ...]:
        """Return the pins, the oldest first."""
        return tuple(self._held.values())

    def take(self, pin: Pinned, now: float) -> None:
        """Let a pin hold, in place of one like it; one whose end is past only ends that.

        Raises:
            ProtocolError: there is no such upstream or class, or the value is none for it.

        """
        self._require(pin)
        self._held.pop((pin.what, pin.name), None)
        if pin.until > now:
            self._held[pin.what, pin.name] = pin
        self.hold()

    def end(self, now: float) -> None:
        """Let what was learnt and configured hold again where a pin is over."""
        self._held = {key: pin for key, pin in self._held.items() if pin.until > now}
        self.hold()

    def hold(self) -> None:
        """Put every pin into force; those of upstreams and classes that are gone are dropped."""
        upstreams = self.tickets.upstreams
        self._held = {
            (what, name): pin
            for (what, name), pin in self._held.items()
            if name in (self.classes if what == "weight" else upstreams)
        }
        self.ends_at = min((pin.until for pin in self._held.values()), default=math.inf)
        for name, upstream in upstreams.items():
            window, pause = (self._held.get((what, name)) for what in ("window", "pause"))
            upstream.hold(
                None if window is None else window.value,
                -math.inf if pause is None else pause.until,
            )
        self.tickets.lanes.take_classes(
            tuple(
                each if (pin := self._held.get(("weight", name))) is None
                else replace(each, weight=pin.value)
                for name, each in self.classes.items()
            )
        )  # fmt: skip

    def _require(self, pin: Pinned) -> None:
        known: Mapping[str, object] = self.tickets.upstreams
        if pin.what == "weight":
            known = self.classes
        if pin.what not in ("window", "pause", "weight") or pin.name not in known:
            raise ProtocolError(
                f"nothing to pin: {shown(pin.what)} of {shown(pin.name)}: window and pause are of "
                f"{', '.join(self.tickets.upstreams)}, weight is of {', '.join(self.classes)}"
            )
        if not abs(pin.until) <= FARTHEST_S:
            raise ProtocolError(f"until={pin.until!r} must be a time: a pin ends by itself")
        try:
            if pin.what == "window":
                _WINDOW.require(value=pin.value)
            elif pin.what == "weight":
                WEIGHT.require(value=pin.value)
        except ValueError as wrong:
            raise ProtocolError(f"{pin.what} of {pin.name}: {wrong}") from None
