"""Conversations stay where their prompt cache is, as long as there is room."""

from penstock.core.model import Latest
from tests.core.story import arrive, complete, request, scheduler, upstream


def test_a_conversation_goes_back_to_the_upstream_that_served_it() -> None:
    fast, slow = upstream("fast", window=1.0), upstream("slow", window=2.0, base_s=3.0)
    penstock = scheduler(fast, slow, sticky=True)
    arrive(penstock, request(1))
    assert arrive(penstock, request(2, session="talk")) == [("dispatch", 2, "slow")]
    complete(penstock, 1, now=1.0)
    complete(penstock, 2, now=3.0)

    assert arrive(penstock, request(3, at=4.0, session="talk")) == [("dispatch", 3, "slow")]
    assert arrive(penstock, request(4, at=4.0, session="other")) == [("dispatch", 4, "fast")]


def test_a_full_home_is_left_rather_than_waited_for() -> None:
    penstock = scheduler(upstream("a", window=1.0), upstream("b", window=1.0), sticky=True)
    told = arrive(penstock, request(1, session="talk"), request(2, session="talk"))

    assert told == [("dispatch", 1, "a"), ("dispatch", 2, "b")]


def test_without_being_asked_nobody_is_sticky() -> None:
    fast, slow = upstream("fast", window=1.0), upstream("slow", window=2.0, base_s=3.0)
    penstock = scheduler(fast, slow)
    arrive(penstock, request(1), request(2, session="talk"))
    complete(penstock, 1, now=1.0)

    assert arrive(penstock, request(3, at=4.0, session="talk")) == [("dispatch", 3, "fast")]


def test_old_conversations_are_forgotten_so_memory_is_bounded() -> None:
    homes: Latest[str] = Latest(3)
    for number in range(4):
        homes.put(f"s{number}", "a")
    homes.put("s1", "b")
    homes.put("s4", "a")

    assert homes == {"s1": "b", "s3": "a", "s4": "a"}
