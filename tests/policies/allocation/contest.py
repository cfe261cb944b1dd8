"""Classes that contend for places: the stage on which the allocators' stories play."""

from penstock.core.events import Arrived, Completed, Dispatch
from penstock.core.model import TrafficClass
from penstock.core.scheduler import Scheduler
from penstock.core.settings import PolicySpec
from tests.core.story import decisions, request, scheduler


def contest(
    kind: str,
    classes: tuple[TrafficClass, ...],
    *arrivals: tuple[str, float],
    window: float = 1.0,
    **options: float,
) -> tuple[Scheduler, list[str]]:
    """Let (class, cost) arrive at once behind a first request, serve all; return the order.

    The first request, of the first class, only takes the place until all have arrived.
    """
    penstock = scheduler(window=window, classes=classes, allocation=PolicySpec(kind, options))
    first = penstock.handle(Arrived(request(0, classes[0].name, cost=1)), now=0.0)
    names = {}
    for id_, (name, cost) in enumerate(arrivals, start=1):
        first += penstock.handle(Arrived(request(id_, name, cost=cost)), now=0.0)
        names[id_] = name
    order, flying, now = [], [a.request.id for a in decisions(first)], 0.0
    while flying:
        now += 1.0
        for action in penstock.handle(Completed(flying.pop(0), None), now=now):
            assert isinstance(action, Dispatch)
            flying.append(action.request.id)
            order.append(names[action.request.id])
    return penstock, order


def letters(order: list[str]) -> str:
    """Return the order as a word of initials."""
    return "".join(name[0] for name in order)
