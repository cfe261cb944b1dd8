"""Brings new settings into a running scheduler, all or nothing; what was learnt stays."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from penstock.core.model import Request, TrafficClass
from penstock.core.policy import Allocator, OrderedQueue, OverloadPolicy
from penstock.core.settings import Settings, UpstreamSettings
from penstock.core.ticket import Stage, Ticket
from penstock.core.tickets import Tickets
from penstock.core.upstream.ledger import Upstream
from penstock.errors import ConfigError, ProtocolError


@dataclass(frozen=True, slots=True)
class SchedulerParts:
    """What `policies.registry` makes of settings."""

    overload: OverloadPolicy
    make_allocator: Callable[[], Allocator]
    make_queue: Callable[[], OrderedQueue]
    make_upstream: Callable[[UpstreamSettings], Upstream]


@dataclass(slots=True)
class Reconfiguration:
    """Changes a scheduler's parts in place.

    - Upstreams keep their window, fits, circuits and limits as long as their name and their
      `identity` stay. A window policy that has changed starts anew; what was used of a
      configured limit stays used when the limit changes.
    - Classes keep their accounts as long as the allocation policy stays; so do tenants and the
      order of what waits, as long as the ordering stays.
    - What belongs to a class that is gone goes to its successor (`TrafficClass.was`); without
      one it is served by its old terms, and so is what still arrives for it.

    Attributes:
        settings: those that hold now.
        generation: 1, and one more for each time that new settings were taken.
        successors: by the names of classes that are gone, the names of those that took over.

    """

    settings: Settings
    build: Callable[[Settings], SchedulerParts] | None
    classes: dict[str, TrafficClass]
    tickets: Tickets
    successors: dict[str, str] = field(default_factory=dict)
    generation: int = 1

    def apply(self, new: Settings, now: float) -> OverloadPolicy:
        """Let the new settings hold from now on; return the overload policy.

        Raises:
            ProtocolError: they cannot be used, or calls are under way for which they have no
                place. Nothing has changed then.

        """
        old = self.settings
        if self.build is None:
            raise ProtocolError("this scheduler was built from parts: it has no settings to change")
        try:
            parts = self.build(new)
            upstreams = {each.name: self._kept_or_new(each, parts) for each in new.upstreams}
        except (ConfigError, ValueError) as error:
            raise ProtocolError(f"the new settings cannot be used: {error}") from error
        self._refuse_orphans(new, upstreams)
        self._take_classes(new)
        rerouted = _routes(old) != _routes(new)
        for each in new.upstreams:
            policy = None
            if _capacity(each, new) != _capacity(self.tickets.upstreams.get(each.name), old):
                policy = parts.make_upstream(each).capacity
            upstreams[each.name].reconfigure(each, policy, new.max_pause_s, now)
        self.tickets.upstreams.clear()
        self.tickets.upstreams.update(upstreams)
        self.tickets.lanes.reconfigure(
            new,
            tuple(upstreams.values()),
            parts.make_allocator,
            parts.make_queue,
            classes=tuple(self.classes.values()),
            tickets=list(self.tickets.by_id.values()),
            rerouted=rerouted,
            now=now,
        )
        for ticket in list(self.tickets.by_id.values()):
            if ticket.request.traffic_class in self.successors:
                self._rename(ticket, now)
        self.settings = new
        self.generation += 1
        return parts.overload

    def inherited(self, request: Request) -> Request:
        """Return a request of a class that is gone as one of its successor.

        Raises:
            ProtocolError: there never was such a class.

        """
        heir = self.successors.get(request.traffic_class)
        if heir is None:
            raise ProtocolError(
                f"class {request.traffic_class!r} is not configured: "
                f"known are {sorted(self.classes)}"
            )
        return replace(request, traffic_class=heir)

    def _kept_or_new(self, each: UpstreamSettings, parts: SchedulerParts) -> Upstream:
        known = self.tickets.upstreams.get(each.name)
        if known is None or known.settings.identity != each.identity:
            return parts.make_upstream(each)
        return known

    def _refuse_orphans(self, new: Settings, upstreams: dict[str, Upstream]) -> None:
        for name, upstream in self.tickets.upstreams.items():
            if upstream.in_flight and upstreams.get(name) is not upstream:
                raise ProtocolError(
                    f"{len(upstream.in_flight)} calls are in flight to upstream {name!r}, which "
                    "the new settings remove or put elsewhere: give its models to others first, "
                    "and remove it when its calls have ended"
                )
        requests = (ticket.request for ticket in self.tickets.by_id.values())
        for model, only in {(each.model, each.upstream): None for each in requests}:
            if not any(each.serves(model) and only in ("", each.name) for each in new.upstreams):
                where = f"upstream {only!r} of the new settings does not serve" if only else (
                    "no upstream of the new settings serves"
                )  # fmt: skip
                raise ProtocolError(
                    f"{where} model {model!r}, for which calls wait or are in flight"
                )

    def _take_classes(self, new: Settings) -> None:
        """Go by the new classes; those that are gone without a successor stay for their tickets."""
        known = {each.name: each for each in new.classes}
        for each in new.classes:
            self.successors.pop(each.name, None)
            self.successors.update((name, each.name) for name in each.was if name not in known)
        retired = [
            each
            for name, each in self.classes.items()
            if name not in known and name not in self.successors
        ]
        self.classes.clear()
        self.classes.update(known)
        self.classes.update((each.name, each) for each in retired)
        self.tickets.backlog.reconfigure(self.classes, new.queue_limit)

    def _rename(self, ticket: Ticket, now: float) -> None:
        """Let a ticket of a class that is gone belong to its successor."""
        lane = self.tickets.lanes.of(ticket.request)
        if ticket.stage is Stage.IN_FLIGHT:
            lane.signals.landed(ticket)
        else:
            self.tickets.backlog.leave(ticket)
            if ticket.stage is Stage.QUEUED:
                lane.take(ticket, now)
        name = self.successors[ticket.request.traffic_class]
        ticket.request = replace(ticket.request, traffic_class=name)
        lane.make_place(name)
        if ticket.stage is Stage.IN_FLIGHT:
            lane.signals.departed(ticket)
        else:
            self.tickets.backlog.enter(ticket)
            if ticket.stage is Stage.QUEUED:
                lane.push(ticket, now)


def _routes(settings: Settings) -> list[tuple[str, str, tuple[str, ...]]]:
    return [(each.name, each.identity, each.models) for each in settings.upstreams]


def _capacity(each: "UpstreamSettings | Upstream | None", settings: Settings) -> object:
    if isinstance(each, Upstream):
        each = each.settings
    return None if each is None else each.capacity or settings.stack.capacity
