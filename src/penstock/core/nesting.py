"""Calls that are made inside others: they may go in the place of those.

A task that holds a slot and waits for another (a call for each piece of a streamed reply, a
scheduled function that calls another) holds and waits: where enough tasks do, each waits for the
others for ever. So a nested call that finds no room goes in the place of the call that it is made
inside, which meanwhile does nothing but wait for it.

Source:
    Hold and wait: Coffman, Elphick & Shoshani, "System Deadlocks", Computing Surveys 3(2), 1971.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from penstock.core.lane import Lane
from penstock.core.model import Request
from penstock.core.ticket import Stage, Ticket
from penstock.core.upstream.ledger import Upstream


@dataclass(slots=True)
class _OuterPlace:
    """An outer call's place, and who was made inside it and has not ended."""

    outer: Ticket
    nested: list[Ticket] = field(default_factory=list)

    @property
    def is_free(self) -> bool:
        """True while the outer call flies and nobody else goes in its place."""
        return self.outer.stage is Stage.IN_FLIGHT and not any(each.lent for each in self.nested)


class Nesting:
    """The places of calls in flight that others were made inside.

    One nested call at a time goes in each; more go through the window as any other call does.

    Attributes:
        places: by the outer call's number; empty nearly always.

    """

    __slots__ = ("_lane_of", "_upstreams", "places")

    def __init__(self, upstreams: tuple[Upstream, ...], lane_of: Callable[[Request], Lane]) -> None:
        """Start without any; `lane_of` knows where a request waits."""
        self._lane_of = lane_of
        self.know(upstreams)
        self.places: dict[int, _OuterPlace] = {}

    def know(self, upstreams: tuple[Upstream, ...]) -> None:
        """Know these upstreams from now on; those with calls in flight are among them."""
        self._upstreams = {upstream.name: upstream for upstream in upstreams}

    def arrived(self, ticket: Ticket, tickets: Mapping[int, Ticket]) -> None:
        """Note a call that was made inside another, if that has not ended."""
        inside = ticket.request.inside
        outer = None if inside is None else tickets.get(inside)
        if outer is not None and ticket.stage is not Stage.ENDED:
            self.places.setdefault(outer.request.id, _OuterPlace(outer)).nested.append(ticket)

    def next(self, lane: Lane, now: float) -> tuple[Ticket, Upstream] | None:
        """Return the nested ticket that goes now in its outer call's place, or None.

        Pauses and stated limits hold for it as for any other; `lane.wake_at` is when they end.
        """
        for place in self.places.values():
            upstream = self._upstreams.get(place.outer.upstream)
            if upstream is None or upstream not in lane.upstreams or not place.is_free:
                continue
            for ticket in place.nested:
                if ticket.stage is not Stage.QUEUED or self._lane_of(ticket.request) is not lane:
                    continue
                at = upstream.opens_at(ticket, now)
                if ticket.attempts:
                    at = max(at, ticket.may_retry_at(upstream.name))
                if at <= now:
                    ticket.lent = True
                    return ticket, upstream
                lane.wake_at = min(lane.wake_at, at)
        return None

    def ended(self, ticket: Ticket) -> None:
        """Forget a call; who went in its place is in the window from now on."""
        inside = ticket.request.inside
        place = self.places.pop(ticket.request.id, None)
        if place is not None:
            for each in place.nested:
                if each.lent:
                    self._upstreams[each.upstream].occupied += 1
                    each.lent = False
        if inside is not None and inside in self.places:
            held = self.places[inside]
            if ticket in held.nested:
                held.nested.remove(ticket)
            if not held.nested:
                del self.places[inside]
