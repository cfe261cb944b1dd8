"""What the scheduler senses of one lane: load, pressure, slowdown, and each class's demand.

Severity is the paper's word for how overloaded the provider is; its formula is ours:

    load      = min(1, predicted work in flight / (window x mean predicted work per request))
    pressure  = min(1, hopeful work / (window x work-weighted mean slack of the hopeful))
    slowdown  = min(1, smoothed max(0, latency / predicted service time - 1))
    raw       = 0.15 load + 0.65 pressure + 0.20 slowdown
    severity  = raw smoothed with time constant 2 s, in [0, 1]

"Work" is predicted service time in seconds, so a long request counts for what it will hold.
The hopeful are those that wait and could still be on time if they started now; pressure is 1
when they cannot all be. What is late already does not count: shedding others would not save it.
A request without a deadline counts with the slack `PATIENCE_S`.
"""

import math
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush

from penstock.core.ticket import Ticket

LEAST_S = 1e-6
KNOWN_REPLIES, REACH = 3, 4.0
"""A line's word counts after so many replies, up to so many times the longest of them."""


@dataclass(slots=True)
class _Bin:
    """The fastest recent reply around one length: two half-windows, so that old ones leave."""

    tokens: float = 0.0
    latency_s: float = float("inf")
    older_tokens: float = 0.0
    older_latency_s: float = float("inf")
    count: int = 0

    def add(self, tokens: float, latency_s: float, keep: int) -> bool:
        """Take in one reply; return whether the envelope changed."""
        self.count += 1
        changed = False
        if self.count > keep:
            self.older_tokens, self.older_latency_s = self.tokens, self.latency_s
            self.tokens, self.latency_s, self.count = tokens, latency_s, 1
            changed = True
        elif latency_s < self.latency_s:
            self.tokens, self.latency_s = tokens, latency_s
            changed = True
        return changed

    def point(self) -> tuple[float, float]:
        """Return (tokens, latency) of the fastest reply in the window."""
        if self.older_latency_s < self.latency_s:
            return self.older_tokens, self.older_latency_s
        return self.tokens, self.latency_s


@dataclass(slots=True)
class Envelope:
    """A time as intercept + slope x tokens, from the lower envelope of recent observations.

    Observations fall into bins of half an octave of their length; each bin remembers its fastest
    one of the last `keep` to 2 x `keep`. A fast reply is one that did not wait inside the
    provider, so a line through those points is the time without hidden waiting.

    Source:
        Ours; the minimum filter is that of BBR's round-trip estimate (Cardwell et al., CACM
        60(2), 2017), made conditional on the length.

    """

    base_s: float = 0.2
    s_per_token: float = 0.005
    keep: int = 32
    replies: int = 0
    longest: int = 0
    _bins: dict[int, _Bin] = field(default_factory=dict)

    def predict_s(self, tokens: float) -> float:
        """Return the predicted time in seconds for this many tokens."""
        return self.base_s + self.s_per_token * tokens

    def knows(self, tokens: float) -> bool:
        """Return whether the line can be believed there: it has seen enough, and nearly as long."""
        return self.replies >= KNOWN_REPLIES and tokens <= REACH * self.longest

    def observe(self, tokens: int, latency_s: float) -> None:
        """Learn from one time; tokens below 0 and times that no clock resolves teach nothing."""
        if tokens < 0 or latency_s < LEAST_S:
            return
        self.replies += 1
        if tokens > self.longest:
            self.longest = tokens
        index = (tokens * tokens).bit_length()  # half-octave bins
        bin_ = self._bins.get(index)
        if bin_ is None:
            bin_ = self._bins[index] = _Bin()
        if bin_.add(tokens, latency_s, self.keep):
            self._refit()

    def _refit(self) -> None:
        points = [bin_.point() for _, bin_ in sorted(self._bins.items())]
        if len(points) == 1:
            tokens, latency_s = points[0]
            scale = latency_s / max(LEAST_S, self.predict_s(tokens))
            self.base_s *= scale
            self.s_per_token *= scale
            return
        # Relative errors count alike: weight 1 / latency^2, or xlong replies drown the intercept.
        sw = sx = sy = sxx = sxy = 0.0
        for tokens, latency_s in points:
            w = 1.0 / (latency_s * latency_s)
            sw += w
            sx += w * tokens
            sy += w * latency_s
            sxx += w * tokens * tokens
            sxy += w * tokens * latency_s
        det = sw * sxx - sx * sx
        if det <= 1e-12 * sw * sxx:
            return
        slope = (sw * sxy - sx * sy) / det
        base = (sy - slope * sx) / sw
        if slope <= 0:
            slope, base = 0.0, sy / sw
        if base < 0:
            slope, base = sxy / sxx, 0.0
        self.base_s, self.s_per_token = base, slope


@dataclass(slots=True)
class ServiceTime(Envelope):
    """One model's times at one upstream: whole replies by output, first tokens by input length.

    Attributes:
        first: the time to the first token over prompt tokens, where replies are streamed.

    """

    first: Envelope = field(default_factory=lambda: Envelope(0.2, 1e-6))

    def observe(self, tokens: int, latency_s: float) -> None:
        """Learn from a complete reply of `tokens` that took `latency_s` from dispatch."""
        if tokens >= 1:
            Envelope.observe(self, tokens, latency_s)


LOAD_SHARE, PRESSURE_SHARE, SLOWDOWN_SHARE = 0.15, 0.65, 0.20
SMOOTHING_S = 2.0
DEMAND_MEMORY_S = 20.0
PATIENCE_S = 300.0
SLOWDOWN_WEIGHT = 0.1
NO_WINDOW = 1e9
REPLIES_MEMORY = 64.0
REPLIES_DOUBT = 4.0
"""The prediction counts as so many replies: the first ones to end are the short ones."""
SILENCE = 3.0
"""A Poisson stream whose mean gap is a third of a silence would have broken it 19 times in 20."""


@dataclass(slots=True)
class ClassDemand:
    """What one class asks for, as decaying means over about `DEMAND_MEMORY_S`.

    Attributes:
        in_flight, in_flight_tokens: how many of its requests fly now, and their predicted tokens.
        waiting, waiting_tokens: how many of its requests wait now, and their predicted tokens.
        service_s: mean service time of a request: the predicted (p50), times what replies took
            on average of what had been predicted for them.
        slack_s: mean time that a request could wait at its arrival and still be on time.

    """

    in_flight: int = 0
    in_flight_tokens: float = 0.0
    waiting: int = 0
    waiting_tokens: float = 0.0
    service_s: float = 0.0
    slack_s: float = math.inf
    _count: float = 0.0
    _service_sum: float = 0.0
    _slack_sum: float = 0.0
    _actual_s: float = 0.0
    _predicted_s: float = 0.0
    _since: float = math.nan
    _at: float = math.nan

    def arrived(self, ticket: Ticket, now: float) -> None:
        """Count one arrival of the class."""
        if self._since != self._since:  # nan: the first one
            self._since = self._at = now
        decay = math.exp((self._at - now) / DEMAND_MEMORY_S)
        self._at = now
        self._count = count = self._count * decay + 1.0
        self._service_sum = service_sum = self._service_sum * decay + ticket.service_p50_s
        slack_s = ticket.latest_start - ticket.request.arrived_at
        if slack_s > PATIENCE_S:
            slack_s = PATIENCE_S
        elif not slack_s > 0.0:
            slack_s = 0.0
        self._slack_sum = slack_sum = self._slack_sum * decay + slack_s
        self.service_s = service_sum / count * self._observed()
        self.slack_s = slack_sum / count

    def is_asking(self, now: float) -> bool:
        """Return whether a request of the class has come lately, waits or flies."""
        return now - self._at <= DEMAND_MEMORY_S or self.waiting > 0 or self.in_flight > 0

    def replied(self, predicted_s: float, actual_s: float) -> None:
        """Note the service time of a reply's real length beside what had been predicted."""
        self._predicted_s += predicted_s - self._predicted_s / REPLIES_MEMORY
        self._actual_s += actual_s - self._actual_s / REPLIES_MEMORY

    def _observed(self) -> float:
        """Return mean actual over mean predicted service time, 1 until a few replies came."""
        known_s = REPLIES_DOUBT * self._service_sum / self._count
        return (self._actual_s + known_s) / (self._predicted_s + known_s)

    def offered(self, now: float) -> float:
        """Return the offered load in requests in service (arrival rate x service time).

        After a silence the rate is at most `SILENCE` arrivals in such a time: a crowd that came
        all at once, and nobody since, is no reason to expect more of them.
        """
        if not self._count:
            return 0.0
        span_s = now - self._since
        # The mean has seen only `span_s` of its memory: without this it starts out too low.
        seen = DEMAND_MEMORY_S * (1.0 - math.exp(-max(span_s, 1.0) / DEMAND_MEMORY_S))
        offered = self._service_sum * math.exp((self._at - now) / DEMAND_MEMORY_S) / seen
        offered *= self._observed()
        silence_s = now - self._at
        if offered * silence_s > SILENCE * self.service_s:
            offered = SILENCE * self.service_s / silence_s
        return offered


@dataclass(slots=True)
class Signals:
    """The senses of one lane; policies read them, only the scheduler writes them.

    Attributes:
        window: how many requests may fly to the lane's usable upstreams, all together.
        occupied: how many places there are taken, those of other lanes included.
        in_flight, in_flight_work_s: this lane's own, and their predicted service times.
        waiting, waiting_work_s: what waits in this lane, the deferred not counted.
        slowdown: smoothed excess of latency over predicted service time; 1 is twice as slow.
        pressure, severity: see the module; as of the last `refresh`, so that looking at them
            changes nothing.
        classes: demand by class.

    """

    window: float = math.inf
    occupied: int = 0
    in_flight: int = 0
    in_flight_work_s: float = 0.0
    waiting: int = 0
    waiting_work_s: float = 0.0
    slowdown: float = 0.0
    pressure: float = 0.0
    severity: float = 0.0
    classes: dict[str, ClassDemand] = field(default_factory=dict)
    _hopeful: dict[int, Ticket] = field(default_factory=dict)
    _start_by: list[tuple[float, int]] = field(default_factory=list)
    _hopeful_work_s: float = 0.0
    _hopeful_deadline: float = 0.0
    _mean_work_s: float = 0.0
    _at: float = math.nan

    def demand(self, traffic_class: str) -> ClassDemand:
        """Return the class's demand record, made when first asked for."""
        demand = self.classes.get(traffic_class)
        if demand is None:
            demand = self.classes[traffic_class] = ClassDemand()
        return demand

    def is_alone(self, traffic_class: str, now: float) -> bool:
        """Return whether no other class has sent anything for about `DEMAND_MEMORY_S`."""
        return not any(
            demand.is_asking(now) for name, demand in self.classes.items() if name != traffic_class
        )

    def arrived(self, ticket: Ticket, now: float) -> None:
        """Note an arrival, before it is judged."""
        name, work_s = ticket.request.traffic_class, ticket.service_p50_s
        (self.classes.get(name) or self.demand(name)).arrived(ticket, now)
        self._mean_work_s += 0.05 * (work_s - self._mean_work_s) if self._mean_work_s else work_s

    def queued(self, ticket: Ticket) -> None:
        """Note a ticket that waits from now on."""
        request, work_s = ticket.request, ticket.service_p50_s
        self.waiting += 1
        self.waiting_work_s += work_s
        demand = self.classes[request.traffic_class]
        demand.waiting += 1
        demand.waiting_tokens += ticket.cost_tokens
        due = request.arrived_at + PATIENCE_S
        if request.deadline < due:
            due = request.deadline
        ticket.start_by = start_by = due - work_s
        self._hopeful[request.id] = ticket
        heappush(self._start_by, (start_by, request.id))
        self._hopeful_work_s += work_s
        self._hopeful_deadline += work_s * start_by

    def unqueued(self, ticket: Ticket) -> None:
        """Note a ticket that no longer waits."""
        request = ticket.request
        self.waiting -= 1
        demand = self.classes[request.traffic_class]
        demand.waiting -= 1
        # Where nothing is left, rounding errors end.
        demand.waiting_tokens = (
            demand.waiting_tokens - ticket.cost_tokens if demand.waiting else 0.0
        )
        self.waiting_work_s = self.waiting_work_s - ticket.service_p50_s if self.waiting else 0.0
        if request.id in self._hopeful:
            self._give_up(ticket)
            if len(self._start_by) > 2 * len(self._hopeful) + 64:
                self._start_by = [(each.start_by, id_) for id_, each in self._hopeful.items()]
                heapify(self._start_by)

    def _give_up(self, ticket: Ticket) -> None:
        """Count a ticket no longer among the hopeful."""
        del self._hopeful[ticket.request.id]
        if self._hopeful:
            work_s = ticket.service_p50_s
            self._hopeful_work_s -= work_s
            self._hopeful_deadline -= work_s * ticket.start_by
        else:  # rounding errors end here
            self._hopeful_work_s = self._hopeful_deadline = self.pressure = 0.0

    def clear_counts(self) -> None:
        """Forget who waits and flies, to count them anew; means and severity stay."""
        self.in_flight = self.waiting = 0
        self.in_flight_work_s = self.waiting_work_s = 0.0
        self._hopeful.clear()
        self._start_by.clear()
        self._hopeful_work_s = self._hopeful_deadline = 0.0
        for demand in self.classes.values():
            demand.in_flight = demand.waiting = 0
            demand.in_flight_tokens = demand.waiting_tokens = 0.0

    def departed(self, ticket: Ticket) -> None:
        """Note a ticket sent upstream."""
        self.in_flight += 1
        self.occupied += not ticket.lent
        self.in_flight_work_s += ticket.service_p50_s
        demand = self.classes[ticket.request.traffic_class]
        demand.in_flight += 1
        demand.in_flight_tokens += ticket.cost_tokens

    def landed(self, ticket: Ticket) -> None:
        """Note a ticket that no longer flies."""
        self.in_flight -= 1
        demand = self.classes[ticket.request.traffic_class]
        demand.in_flight -= 1
        demand.in_flight_tokens = (
            demand.in_flight_tokens - ticket.cost_tokens if demand.in_flight else 0.0
        )
        if self.in_flight:
            self.in_flight_work_s -= ticket.service_p50_s
        else:
            self.in_flight_work_s = 0.0

    def replied(self, ticket: Ticket, ratio: float, now: float) -> None:
        """Note a reply's latency over the service time expected of its real length."""
        if ratio > 0.0:  # 0: it took no time that the clock can tell
            demand = self.classes[ticket.request.traffic_class]
            demand.replied(ticket.service_p50_s, (now - ticket.dispatched_at) / ratio)
        excess = ratio - 1.0 if ratio > 1.0 else 0.0
        self.slowdown += SLOWDOWN_WEIGHT * (excess - self.slowdown)

    def _pressed(self, window: float, now: float) -> float:
        """Return hopeful work over what can be done before its deadlines, in [0, 1]."""
        start_by = self._start_by
        while start_by and start_by[0][0] < now:
            at, id_ = heappop(start_by)
            ticket = self._hopeful.get(id_)
            if ticket is not None and ticket.start_by == at:
                self._give_up(ticket)
        work_s = self._hopeful_work_s
        if work_s <= 0.0:
            return 0.0
        room_s = window * (self._hopeful_deadline / work_s - now)
        return 1.0 if room_s <= work_s else work_s / room_s

    def refresh(self, now: float) -> float:
        """Bring the severity up to `now` and return it."""
        window = self.window
        if window > NO_WINDOW:
            window = NO_WINDOW
        window_work_s = window * self._mean_work_s
        flying_s, slowdown, at = self.in_flight_work_s, self.slowdown, self._at
        load = flying_s / window_work_s if flying_s < window_work_s else float(flying_s > 0)
        self.pressure = pressure = self._pressed(window, now)
        raw = (
            LOAD_SHARE * load
            + PRESSURE_SHARE * pressure
            + SLOWDOWN_SHARE * (slowdown if slowdown < 1.0 else 1.0)
        )
        if now > at:
            severity = self.severity
            severity += (raw - severity) * (1.0 - math.exp((at - now) / SMOOTHING_S))
            self.severity = severity
        elif at != at:  # nan: the first look
            self.severity = raw
        self._at = now
        return self.severity
