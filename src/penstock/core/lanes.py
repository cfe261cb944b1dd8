"""The lanes: which requests contend for which upstreams.

A task that holds a slot and waits for another (a call for each piece of a streamed reply, a
scheduled function that calls another) holds and waits: where enough tasks do, each waits for the
others for ever. So a nested call that finds no room goes in the place of the call that it is made
inside, which meanwhile does nothing but wait for it.

Source:
    Hold and wait: Coffman, Elphick & Shoshani, "System Deadlocks", Computing Surveys 3(2), 1971.

"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from penstock.core.backlog import RetryBudget
from penstock.core.lane import Lane
from penstock.core.model import Latest, Request, TrafficClass
from penstock.core.policy import Allocator, OrderedQueue
from penstock.core.settings import Settings
from penstock.core.ticket import Stage, Ticket
from penstock.core.upstream.ledger import Upstream
from penstock.errors import ProtocolError


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


MODELS_LIMIT = 4096
SESSIONS_LIMIT = 10_000


class Lanes:
    """One lane for each set of upstreams that serve the same models, made when first needed.

    Attributes:
        of_model: the lanes of models asked for so far, None where no upstream serves the model.
        of_upstream: the lanes that share an upstream, by its name.
        by_upstreams: all lanes, by the names of their upstreams.
        nesting: the calls that are made inside others.

    """

    def __init__(
        self,
        settings: Settings,
        upstreams: tuple[Upstream, ...],
        make_allocator: Callable[[], Allocator],
        make_queue: Callable[[], OrderedQueue],
    ) -> None:
        """Start with no lane."""
        self._settings = settings
        self._upstreams = upstreams
        self._make_allocator = make_allocator
        self._make_queue = make_queue
        self.of_model: dict[str, Lane | None] = {}
        self.of_upstream: dict[str, list[Lane]] = {u.name: [] for u in upstreams}
        self.by_upstreams: dict[tuple[str, ...], Lane] = {}
        self.nesting = Nesting(upstreams, self.of)
        self._kept: dict[tuple[str, ...], Lane] = {}
        self._classes: tuple[TrafficClass, ...] = settings.classes

    def __iter__(self) -> Iterator[Lane]:
        """Walk the lanes in the order in which they were made."""
        return iter(self.by_upstreams.values())

    def upstream(self, name: str) -> Upstream:
        """Return the upstream of that name.

        Raises:
            ProtocolError: none has it.

        """
        for upstream in self._upstreams:
            if upstream.name == name:
                return upstream
        known = [upstream.name for upstream in self._upstreams]
        raise ProtocolError(f"upstream {name!r} is not configured: known are {sorted(known)}")

    def find(self, request: Request) -> Lane | None:
        """Return the lane of a request; None if no upstream serves its model."""
        model, only = request.model, request.upstream
        if only:
            return self._among(u for u in self._upstreams if u.name == only and u.serves(model))
        lane = self.of_model.get(model)
        if lane is None and model not in self.of_model:
            if len(self.of_model) >= MODELS_LIMIT:  # names are the callers'
                self.of_model.clear()
            lane = self._among(u for u in self._upstreams if u.serves(model))
            self.of_model[model] = lane
        return lane

    def _among(self, found: Iterable[Upstream]) -> Lane | None:
        serving = tuple(found)
        names = tuple(u.name for u in serving)
        if serving and names not in self.by_upstreams:
            self.by_upstreams[names] = self._known_or_new(names, serving)
            self._enlist(self.by_upstreams[names])
        return self.by_upstreams.get(names)

    def of(self, request: Request) -> Lane:
        """Return the lane of a request that is known to have one."""
        lane = self.find(request)
        assert lane is not None  # only requests with a lane become tickets
        return lane

    def _known_or_new(self, names: tuple[str, ...], serving: tuple[Upstream, ...]) -> Lane:
        known = self._kept.pop(names, None)
        return self._new(serving) if known is None else known

    def _new(self, serving: tuple[Upstream, ...]) -> Lane:
        return Lane(
            serving,
            self._allocator(),
            self._make_queue,
            RetryBudget(self._settings.retry_share, len(serving)),
            homes=Latest(SESSIONS_LIMIT) if self._settings.sticky else None,
            tenants={} if self._settings.tenant_turns else None,
        )

    def _allocator(self) -> Allocator:
        allocator = self._make_allocator()
        if self._classes != self._settings.classes:  # some are gone and still served
            allocator.take_classes(self._classes)
        return allocator

    def _enlist(self, lane: Lane) -> None:
        lane.signals.window = sum(upstream.capacity.window for upstream in lane.upstreams)
        for upstream in lane.upstreams:
            upstream.has_peers = upstream.has_peers or len(lane.upstreams) > 1
            self.of_upstream[upstream.name].append(lane)

    def reconfigure(
        self,
        settings: Settings,
        upstreams: tuple[Upstream, ...],
        make_allocator: Callable[[], Allocator],
        make_queue: Callable[[], OrderedQueue],
        *,
        classes: tuple[TrafficClass, ...],
        tickets: list[Ticket],
        rerouted: bool,
        now: float,
    ) -> None:
        """Go by these settings; `rerouted` says that upstreams or their models have changed."""
        old = self._settings
        self._settings = settings
        self._make_allocator, self._make_queue = make_allocator, make_queue
        self._classes = classes
        if rerouted:
            self._reroute(upstreams, tickets, now)
        same_order = (old.stack.ordering, old.tenant_turns) == (
            settings.stack.ordering,
            settings.tenant_turns,
        )
        for lane in (*self.by_upstreams.values(), *self._kept.values()):
            if old.stack.allocation == settings.stack.allocation:
                lane.allocator.take_classes(classes)
            else:
                lane.allocator = self._allocator()
            lane.retries.share = settings.retry_share
            lane.homes = (lane.homes or Latest(SESSIONS_LIMIT)) if settings.sticky else None
            lane.note_reserving()
            if not same_order:
                waiting = [
                    each
                    for each in tickets
                    if each.stage is Stage.QUEUED and self.of(each.request) is lane
                ]
                turns = settings.tenant_turns
                lane.requeue(make_queue, waiting, tenant_turns=turns, now=now)

    def _reroute(self, upstreams: tuple[Upstream, ...], tickets: list[Ticket], now: float) -> None:
        """Make the lanes anew, but for those of the same upstreams; move who is in another now."""
        before = {each.request.id: self.of(each.request) for each in tickets}
        self._kept |= self.by_upstreams
        self._kept = {
            names: lane
            for names, lane in self._kept.items()
            if all(each in upstreams for each in lane.upstreams)
        }
        self._upstreams = upstreams
        self.nesting.know(upstreams)
        self.of_model, self.by_upstreams = {}, {}
        self.of_upstream = {each.name: [] for each in upstreams}
        for upstream in upstreams:
            upstream.has_peers = False
        for ticket in tickets:
            name = ticket.request.traffic_class
            origin, lane = before[ticket.request.id], self.of(ticket.request)
            if origin is lane:
                continue
            lane.make_place(name)
            if ticket.stage is Stage.QUEUED:
                origin.take(ticket, now)
                lane.push(ticket, now)
            elif ticket.stage is Stage.IN_FLIGHT:
                origin.signals.landed(ticket)
                lane.signals.departed(ticket)
                sharing = self.of_upstream[ticket.upstream]
                if lane not in sharing:  # its last calls there end in it all the same
                    sharing.append(lane)

    def take_classes(self, classes: tuple[TrafficClass, ...]) -> None:
        """Go by these classes from now on; what each may still spend stays."""
        if classes != self._classes:
            self._classes = classes
            for lane in (*self.by_upstreams.values(), *self._kept.values()):
                lane.allocator.take_classes(classes)

    def renew(self, lane: Lane) -> None:
        """Give a lane an allocator and queues that know nothing yet, and nobody in its signals."""
        lane.renew(self._allocator())
