"""A scheduler on a clock that the test moves, seen by the dashboard's state."""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

from penstock.core.events import Arrived, Completed, Dispatch, Event
from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.settings import PolicySpec, Settings, Stack, UpstreamSettings
from penstock.core.snapshot import QueuePosition, Snapshot, WaitingGroup
from penstock.dashboard.state import DashboardState
from penstock.log.explain import RequestHistory, story_of
from penstock.log.reader import parse_log
from penstock.policies.registry import build_scheduler
from penstock.proxy.observe.live import Recent
from penstock.proxy.observe.metrics import Metrics


def settings(*, window: float, classes: Sequence[str] = ("all",)) -> Settings:
    return Settings(
        classes=tuple(TrafficClass(name, deadline_s=60.0) for name in classes),
        upstreams=(UpstreamSettings("here"),),
        stack=Stack(capacity=PolicySpec("fixed", {"window": window})),
    )


class Scene:
    """A source of the page's data; `clock` is moved by hand."""

    live = True

    def __init__(self, settings: Settings) -> None:
        self._core = build_scheduler(settings)
        self.clock = 0.0
        self.report: Mapping[str, Any] | None = None
        self.refused_unscheduled: dict[tuple[str, str], float] = {}
        self.gone_on: dict[tuple[str, ...], float] = {}
        self.state = DashboardState("run", now=0.0, wall=1_795_000_000.0)
        self._recent = Recent(1_000, Metrics(), run="run", started_at=0.0, wall_now=1_795_000_000.0)

    def arrive(
        self,
        number: int,
        *,
        tenant: str = "",
        name: str = "all",
        deadline_s: float | None = None,
        tokens: float = 40,
    ) -> list[int]:
        """Let a request arrive; return who was sent."""
        known = next(each for each in self._core.settings.classes if each.name == name)
        deadline = self.clock + (known.deadline_s if deadline_s is None else deadline_s)
        estimate = TokenEstimate(tokens, 2 * tokens)
        request = Request(number, name, self.clock, estimate, deadline, tenant=tenant, model="m")
        return self.tell(Arrived(request))

    def tell(self, event: Event) -> list[int]:
        """Tell the scheduler what happened; return who was sent."""
        observers = (self.state, self._recent)
        for observer in observers:
            observer.event(self.clock, event)
        actions = self._core.handle(event, now=self.clock)
        for action in actions:
            for observer in observers:
                observer.action(self.clock, action)
        return [each.request.id for each in actions if isinstance(each, Dispatch)]

    def now(self) -> float:
        return self.clock

    def snapshot(self) -> Snapshot | None:
        return self._core.snapshot()

    def held(self) -> Sequence[WaitingGroup] | None:
        return self._core.waiting.held()

    def place(self, number: int) -> QueuePosition | None:
        return self._core.waiting.place(number, now=self.clock)

    def whatif(self) -> Mapping[str, Any] | None:
        return self.report

    def fallbacks(self) -> Mapping[tuple[str, ...], float]:
        return self.gone_on

    def turned_away(self) -> Mapping[tuple[str, str], float]:
        return self.refused_unscheduled

    def story(self, public_id: str) -> RequestHistory | None:
        lines = self._recent.of(public_id)
        return None if lines is None else story_of(parse_log(lines), public_id, now=self.clock)


def scene() -> Scene:
    """Nine came, half a second apart; two were served, one flies and six wait."""
    it = Scene(settings(window=1.0))
    for number in range(9):
        it.clock = number * 0.5
        it.arrive(number)
    for number, ended_at in ((0, 5.0), (1, 10.0)):
        it.clock = ended_at
        assert it.tell(Completed(number, 40)) == [number + 1]
    it.clock = 12.0
    return it


def busy() -> Scene:
    """Two minutes of chat beside reports: more is asked for than four places serve."""
    classes = (
        TrafficClass("interactive", weight=4.0, deadline_s=5.0),
        TrafficClass("batch", deadline_s=60.0, queue_limit=12),
    )
    it = Scene(Settings(classes=classes, upstreams=(UpstreamSettings("practice"),)))
    ends: list[tuple[float, int]] = []
    number = 0
    for tick in range(240):
        it.clock = tick * 0.5
        while ends and ends[0][0] <= it.clock:
            done = heapq.heappop(ends)[1]
            for sent in it.tell(Completed(done, 30 if done % 3 else 280)):
                _fly(it, sent, ends)
        for _ in range(1 if tick % 3 else 2):
            name, tokens = ("interactive", 30) if number % 3 else ("batch", 250)
            for sent in it.arrive(number, name=name, tokens=tokens, tenant=f"team-{number % 4}"):
                _fly(it, sent, ends)
            number += 1
    first = number
    for number in range(first, first + 8):  # a crowd, so that something waits in any case
        it.arrive(number, name="batch", tokens=250, tenant=f"team-{number % 4}")
    it.clock += 4.0
    return it


def _fly(it: Scene, number: int, ends: list[tuple[float, int]]) -> None:
    """Serve a call: at most four at once are worked on, the others wait inside the provider."""
    beside = sum(1 for each in it.state.in_hand.values() if each.upstream)
    service_s = 0.8 if number % 3 else 5.0
    heapq.heappush(ends, (it.clock + service_s * max(1.0, beside / 4), number))


def answer() -> dict[str, Any]:
    """What a shadow says of direct calls and of one policy that cannot be asked here."""
    figures: dict[str, dict[str, Any]] = {
        "met": {"real": 0.9, "now": 0.89, "then": 0.5, "change": -0.39, "low": -0.5, "high": -0.3},
        "p50_s": {"real": 1.0, "now": 1.1, "then": 4.0, "change": 2.9, "low": -0.001, "high": 5.0},
        "p95_s": dict.fromkeys(("real", "now", "then", "change", "low", "high")),
        "refused": {"real": 0.0, "now": 0.0, "then": 0.0, "change": 0.0, "low": 0.0, "high": 0.0},
    }
    sure = {name: {**each, "sure": name == "met"} for name, each in figures.items()}
    group = {"kind": "all", "name": "", "calls": 1200, "figures": sure}
    return {
        "from_unix_s": 1_795_000_000.0, "until_unix_s": 1_795_003_600.0, "calls": 1200,
        "trusted": False, "because": ["latency P95: 4.00 s really, 9.00 s by the twin"],
        "policies": {"direct": [group], "narrow": "classes: there is no 'urgent' in the log"},
    }  # fmt: skip
