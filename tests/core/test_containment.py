"""A policy raises in the middle of a decision: one request ends, and the scheduler goes on."""

from collections.abc import Callable
from typing import Any

import pytest

from penstock.core.events import (
    Arrived,
    Cancelled,
    Completed,
    Dispatch,
    Failed,
    FirstToken,
    RefusalCause,
    Reject,
    Throttled,
    Woke,
)
from penstock.core.scheduler import Scheduler
from penstock.core.settings import Settings
from penstock.core.upstream.ledger import Upstream
from penstock.policies.allocation.drr import Drr
from penstock.policies.capacity.fixed import Fixed
from penstock.policies.ordering.by_key import EarliestDeadlineFirst
from penstock.policies.overload.always_admit import AlwaysAdmit
from tests.core.story import BOTH, arrive, complete, is_at_rest, request, tell, upstream


class Fuse:
    """Blows at the n-th call of one method, then never again."""

    def __init__(self, method: str, calls: int) -> None:
        self.method, self.calls = method, calls

    def put_into(self, part: Any) -> Any:
        sound = getattr(part, self.method, None)
        if sound is not None:

            def call(*args: Any, **named: Any) -> Any:
                self.calls -= 1
                if self.calls == 0:
                    raise ZeroDivisionError(f"{self.method} of {type(part).__name__}")
                return sound(*args, **named)

            setattr(part, self.method, call)
        return part


def with_a(fuse: Fuse, *, window: float = 2.0) -> Scheduler:
    settings = Settings(BOTH, (upstream(window=window),))
    (here,) = settings.upstreams
    make: dict[str, Callable[[], Any]] = {
        "allocator": lambda: fuse.put_into(Drr(settings.classes)),
        "queue": lambda: fuse.put_into(EarliestDeadlineFirst()),
    }
    return Scheduler(
        settings,
        (Upstream(here, fuse.put_into(Fixed(window=window))),),
        overload=fuse.put_into(AlwaysAdmit()),
        make_allocator=make["allocator"],
        make_queue=make["queue"],
    )


METHODS = (
    *("judge", "choose", "charge", "settle", "push", "head", "take"),
    *("has_room", "on_dispatch", "on_landing", "on_first_token", "on_reply", "on_refusal"),
)


@pytest.mark.parametrize("calls", [1, 2, 3, 5, 8, 13])
@pytest.mark.parametrize("method", METHODS)
def test_whatever_raises_every_request_ends_once_and_all_is_free_again(
    method: str, calls: int
) -> None:
    fuse = Fuse(method, calls)
    penstock = with_a(fuse)
    flying: set[int] = set()
    ended: list[int] = []
    faults: list[Exception] = []

    def note(now: float, event: Any) -> None:
        for action in penstock.handle(event, now=now):
            if isinstance(action, Dispatch):
                flying.add(action.request.id)
            elif isinstance(action, Reject):
                ended.append(action.request.id)
        faults.extend(penstock.faults)
        penstock.faults.clear()

    for id_ in range(1, 13):
        note(float(id_), Arrived(request(id_, ("batch", "interactive")[id_ % 2], at=float(id_))))
        for flown in sorted(flying):
            flying.discard(flown)
            if flown % 5 == 1:
                note(float(id_), FirstToken(flown))
            if flown % 4 == 0:
                note(float(id_), Throttled(flown, RefusalCause.OVERLOAD, 0.5))
            elif flown % 3 == 0:
                ended.append(flown)
                note(float(id_), Failed(flown))
            elif flown % 7 == 0:
                ended.append(flown)
                note(float(id_), Cancelled(flown))
            elif flown % 4 != 0:
                ended.append(flown)
                note(float(id_), Completed(flown, 90))
    now = 13.0
    while (at := penstock.next_wakeup()) is not None or flying:
        now = now + 0.1 if at is None else max(now, at)
        for flown in sorted(flying):
            flying.discard(flown)
            ended.append(flown)
            note(now, Completed(flown, 90))
        note(now, Woke())
        assert now < 1000.0

    assert len(faults) == penstock.snapshot().faults == int(fuse.calls <= 0)
    assert sorted(ended) == list(range(1, 13))
    assert is_at_rest(penstock)


def test_the_request_that_was_being_handled_is_refused_in_words() -> None:
    penstock = with_a(Fuse("judge", 2))
    arrive(penstock, request(1))

    assert arrive(penstock, request(2)) == [("reject", 2, "fault")]
    assert [str(fault) for fault in penstock.faults] == ["judge of AlwaysAdmit"]
    assert arrive(penstock, request(3)) == [("dispatch", 3, "default")]


def test_a_reply_that_cannot_be_learnt_from_frees_its_place_for_the_next() -> None:
    penstock = with_a(Fuse("on_reply", 1), window=1.0)
    arrive(penstock, request(1), request(2))

    assert complete(penstock, 1, now=1.0) == [("dispatch", 2, "default")]
    assert penstock.snapshot().in_flight == 1


def test_what_raises_every_time_ends_requests_but_never_the_scheduler() -> None:
    class Broken(Fuse):
        def put_into(self, part: Any) -> Any:
            self.calls = 1  # each part blows at its first call
            return super().put_into(part)

    penstock = with_a(Broken("push", 1))
    told = [word for id_ in range(5) for word in arrive(penstock, request(id_))]

    assert {word[2] for word in told} <= {"fault", "default"}
    tell(penstock, (9.0, Woke()))
    assert penstock.snapshot().faults > 0
