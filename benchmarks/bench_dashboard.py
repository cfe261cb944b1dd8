"""What the dashboard costs: on every request, and for each second that somebody looks.

    python benchmarks/bench_dashboard.py

One scheduler is driven on a virtual clock with 500 requests a second, and with 10,000 waiting. What
is timed is the processor's time in the dashboard's own code: its observer, and the view that an
open page is sent each second, with its JSON. The share is of one core.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator

from penstock.core.events import Arrived, Completed, Dispatch, Event, FirstToken
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.scheduler import Scheduler
from penstock.core.settings import PolicySpec, Settings, Stack
from penstock.core.snapshot import Snapshot
from penstock.core.waiting import QueuePosition, WaitingGroup
from penstock.dashboard.state import DashboardState
from penstock.dashboard.views import VIEWS, view
from penstock.log.explain import RequestHistory
from penstock.policies.registry import build_scheduler
from penstock.wire import jsonio

RATE_PER_S, SECONDS, WAITING = 500, 60, 10_000


class Rig:
    """A scheduler with a dashboard; `seconds` is the processor's time in the observer."""

    live = True

    def __init__(self) -> None:
        classes = (TrafficClass("chat", weight=4.0, deadline_s=5.0), TrafficClass("batch"))
        stack = Stack(capacity=PolicySpec("fixed", {"window": 100.0}))
        self.core: Scheduler = build_scheduler(Settings(classes=classes, stack=stack))
        self.state = DashboardState("run", now=0.0, wall=0.0)
        self.clock = self.seconds = 0.0
        self.flying: deque[int] = deque()

    def tell(self, event: Event) -> None:
        actions = self.core.handle(event, now=self.clock)
        begun = time.process_time()
        self.state.event(self.clock, event)
        for action in actions:
            self.state.action(self.clock, action)
        self.seconds += time.process_time() - begun
        self.flying.extend(each.request.id for each in actions if isinstance(each, Dispatch))

    def arrive(self, number: int) -> None:
        name = "chat" if number % 2 else "batch"
        deadline = self.clock + 60.0
        tenant = f"team-{number % 50}"
        estimate = TokenEstimate(40, 80)
        self.tell(
            Arrived(Request(number, name, self.clock, estimate, deadline, tenant=tenant, model="m"))
        )

    def end_one(self) -> None:
        number = self.flying.popleft()
        self.tell(FirstToken(number))
        self.tell(Completed(number, 40))

    def now(self) -> float:
        return self.clock

    def snapshot(self) -> Snapshot | None:
        return self.core.snapshot()

    def held(self) -> list[WaitingGroup] | None:
        return self.core.waiting.held()

    def place(self, number: int) -> QueuePosition | None:
        return self.core.waiting.place(number, now=self.clock)

    def whatif(self) -> None:
        return None

    def fallbacks(self) -> dict[tuple[str, ...], float]:
        return {}

    def turned_away(self) -> dict[tuple[str, str], float]:
        return {}

    def story(self, _public_id: str) -> RequestHistory | None:
        return None


def timed(work: Callable[[], object], times: int = 5) -> float:
    """Return the processor's seconds of one run, the least of some."""

    def runs() -> Iterator[float]:
        for _ in range(times):
            begun = time.process_time()
            work()
            yield time.process_time() - begun

    return min(runs())


def main() -> None:
    rig = Rig()
    for number in range(RATE_PER_S * SECONDS):
        rig.clock = number / RATE_PER_S
        rig.arrive(number)
        if len(rig.flying) >= 50:
            rig.end_one()
    each_us = 1e6 * rig.seconds / (RATE_PER_S * SECONDS)
    timer_us = 1e6 * timed(lambda: [time.process_time() for _ in range(10_000)]) / 10_000
    each_us -= 4 * timer_us  # four events a request
    print(f"observer: {each_us:.1f} us a request, {each_us * RATE_PER_S / 1e4:.2f} % at 500/s")
    many = Rig()
    for number in range(WAITING):
        many.arrive(number)
    print(f"{'view, once a second':22} {'at 500/s':>10} {'10,000 waiting':>16}   bytes")
    for name in VIEWS:
        busy_s = timed(lambda: jsonio.dumps(view(rig, name)))  # noqa: B023
        full_s = timed(lambda: jsonio.dumps(view(many, name)))  # noqa: B023
        size = len(jsonio.dumps(view(many, name)))
        print(f"{name:22} {100 * busy_s:>9.2f}% {100 * full_s:>15.2f}%   {size:,}")
    place_s = timed(lambda: many.place(WAITING - 1))
    print(f"{'place of one (2 s)':22} {'':>10} {100 * place_s / 2:>15.2f}%")


if __name__ == "__main__":
    main()
