"""A world with one hidden provider: what a window policy makes of it, told as figures."""

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from penstock.core.events import Action, Arrived, Completed, Dispatch, FirstToken, Reject, Woke
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.scheduler import Scheduler
from penstock.core.settings import PolicySpec, Settings, Stack
from penstock.policies.registry import build_scheduler
from penstock.sim.providers.base import Happening, Job
from penstock.sim.providers.registry import build_provider

BUCKETS = (("short", 16, 64, 1.0), ("medium", 65, 256, 4.0), ("long", 257, 1024, 15.0))
MIX = (0.4, 0.3, 0.3)
CLASSES = (
    TrafficClass("interactive", estimate=TokenEstimate(32, 64)),
    TrafficClass("heavy", estimate=TokenEstimate(400, 2500)),
)
MEAN_TOKENS = (34.6, 139.3, 554.6)


def mean_service_s(mix: tuple[float, ...]) -> float:
    """Return the mean time in service of a mix, in seconds."""
    tokens = sum(share * mean for share, mean in zip(mix, MEAN_TOKENS, strict=True))
    return 0.15 + 0.005 * tokens


@dataclass
class Seen:
    """What happened."""

    queued_s: list[float] = field(default_factory=list)
    latencies_s: dict[str, list[float]] = field(default_factory=dict)
    in_time: int = 0
    ended: int = 0
    windows: list[tuple[float, float]] = field(default_factory=list)

    def window_at(self, at: float) -> float:
        """Return the window that held at a time."""
        return [window for when, window in self.windows if when <= at][-1]


def live_through(
    provider: Mapping[str, Any],
    *,
    places: float,
    load: float,
    capacity: PolicySpec = PolicySpec("posterior"),
    seconds: float = 90.0,
    streams: bool = False,
    seed: int = 1,
    mix: tuple[float, ...] = MIX,
) -> Seen:
    """Send Poisson traffic of `load` times what `places` servers can do, until it is all done."""
    dice = random.Random(seed)
    penstock = build_scheduler(Settings(CLASSES, stack=Stack(capacity=capacity)))
    hidden = build_provider(provider, seed=seed)
    arrivals, lengths, names = _traffic(dice, load * places / mean_service_s(mix), seconds, mix)
    seen, coming, now = Seen(), 0, 0.0

    def carry_out(actions: list[Action]) -> None:
        for action in actions:
            if isinstance(action, Dispatch):
                id_ = action.request.id
                seen.queued_s.append(now - action.request.arrived_at)
                hidden.submit(Job(id_, lengths[id_]), now=now)
            elif isinstance(action, Reject):
                seen.ended += 1

    while seen.ended < len(arrivals):
        wakeup = penstock.next_wakeup()
        next_at = arrivals[coming].arrived_at if coming < len(arrivals) else math.inf
        now = min(hidden.next_event_at(), next_at, math.inf if wakeup is None else wakeup)
        for event in hidden.advance(now=now):
            if event.what is Happening.FINISHED:
                _count(seen, arrivals[event.job_id], names[event.job_id], now)
                carry_out(penstock.handle(Completed(event.job_id, lengths[event.job_id]), now=now))
            elif streams:
                carry_out(penstock.handle(FirstToken(event.job_id), now=now))
        if next_at <= now:
            carry_out(penstock.handle(Arrived(arrivals[coming]), now=now))
            coming += 1
        elif wakeup is not None and wakeup <= now:
            carry_out(penstock.handle(Woke(), now=now))
        _note_window(seen, penstock, now)
    return seen


def _traffic(
    dice: random.Random, rate_per_s: float, seconds: float, mix: tuple[float, ...]
) -> tuple[list[Request], list[int], list[str]]:
    arrivals: list[Request] = []
    lengths: list[int] = []
    names: list[str] = []
    at = dice.expovariate(rate_per_s)
    while at < seconds:
        name, low, high, deadline_s = dice.choices(BUCKETS, mix)[0]
        estimate = TokenEstimate(low * (high / low) ** 0.5, low * (high / low) ** 0.9)
        traffic_class = "interactive" if name == "short" else "heavy"
        request = Request(len(arrivals), traffic_class, at, estimate, deadline=at + deadline_s)
        arrivals.append(request)
        lengths.append(round(math.exp(dice.uniform(math.log(low), math.log(high)))))
        names.append(name)
        at += dice.expovariate(rate_per_s)
    return arrivals, lengths, names


def _count(seen: Seen, request: Request, name: str, now: float) -> None:
    seen.ended += 1
    seen.in_time += now <= request.deadline
    seen.latencies_s.setdefault(name, []).append(now - request.arrived_at)


def _note_window(seen: Seen, penstock: Scheduler, now: float) -> None:
    window = penstock.snapshot().upstreams["default"].window
    if not seen.windows or seen.windows[-1][1] != window:
        seen.windows.append((now, window))
