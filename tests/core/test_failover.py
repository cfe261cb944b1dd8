"""One upstream is sick, another is well: requests move, and nobody else pays for it."""

import pytest

from penstock.core.backlog import ALWAYS
from penstock.core.events import Failed, Woke
from penstock.core.scheduler import Scheduler
from tests.core.story import arrive, complete, request, scheduler, tell, upstream
from tests.core.town import Rule, Town, always, partly


def two(*, models: bool = False, retry_share: float = 0.1) -> Scheduler:
    return scheduler(
        upstream("a", window=16.0, models=("m",) if models else ()),
        upstream("b", window=16.0, models=("n",) if models else (), base_s=1.1),
        retry_share=retry_share,
    )


def test_a_sick_upstream_takes_no_retries_from_another_model() -> None:
    town = Town(two(models=True), {"a": always("broken"), "b": partly(0.02, "broken")})
    town.ask(10.0, 60.0, model="m")
    town.ask(10.0, 60.0, model="n")
    town.run(1000.0)

    # In each of the five minutes in which callers wait, a few are always allowed.
    assert town.attempts["a"] <= 1.1 * 600 + 5 * ALWAYS
    assert town.attempts["b"] > 600
    assert town.outcomes["completed"] == 600


@pytest.mark.parametrize("what", ["rate", "overload", "broken", "unreachable"])
@pytest.mark.parametrize("models", [False, True])
def test_where_everything_refuses_no_extra_attempts_are_made(what: str, models: bool) -> None:
    town = Town(two(models=models), {"a": always(what), "b": always(what)})
    town.ask(10.0, 60.0, model="m")
    town.ask(10.0, 60.0, model="n")
    town.run(60.0)

    assert sum(town.attempts.values()) <= 1.1 * 1200 + 2 * ALWAYS


def test_a_request_that_could_not_reach_its_upstream_goes_to_another_at_once() -> None:
    penstock = scheduler(upstream("a"), upstream("b", base_s=9.0), retry_share=0.0)
    for id_ in range(20):
        told = arrive(penstock, request(id_, at=id_ * 10.0))
        if told == [("dispatch", id_, "a")]:
            told = tell(penstock, (id_ * 10.0 + 0.5, Failed(id_, retryable=True, reached=False)))
        assert told == [("dispatch", id_, "b")]
        complete(penstock, id_, now=id_ * 10.0 + 9.0)


def test_what_cannot_be_reached_is_tried_once_at_each_and_then_within_the_budget() -> None:
    penstock = scheduler(*(upstream(name) for name in "abc"), retry_share=0.0, max_attempts=100)
    told = arrive(penstock, request(1))
    for now in (0.25, 0.5):
        told += tell(penstock, (now, Failed(1, retryable=True, reached=False)))

    assert told == [("dispatch", 1, "a"), ("dispatch", 1, "b"), ("dispatch", 1, "c")]
    assert tell(penstock, (0.75, Failed(1, retryable=True, reached=False))) == []
    assert penstock.next_wakeup() == 1.75  # a back-off, and one from the budget
    assert len(tell(penstock, (1.75, Woke()))) == 1


def test_a_broken_attempt_moves_once_beyond_the_retry_budget() -> None:
    penstock = scheduler(upstream("a", window=9.0), upstream("b", window=9.0, base_s=9.0))
    arrive(penstock, request(1))
    tell(penstock, (1.0, Failed(1, retryable=True, jitter=0.5)))

    assert tell(penstock, (1.25, Woke())) == [("dispatch", 1, "b")]
    assert complete(penstock, 1, now=3.0) == []


@pytest.mark.parametrize("rule", [always("broken"), always("unreachable"), always("overload")])
def test_callers_do_not_see_the_faults_of_an_upstream_while_another_is_well(rule: Rule) -> None:
    town = Town(two(), {"a": rule, "b": always("reply")})
    town.ask(20.0, 60.0)
    town.run(1000.0)

    assert town.outcomes == {"completed": 1200}
    assert town.attempts["a"] <= 30


def test_a_probe_that_fails_goes_elsewhere() -> None:
    penstock = scheduler(
        upstream("fast", window=16.0, base_s=0.001),
        upstream("slow", window=16.0),
        retry_share=0.0,
    )
    town = Town(penstock, {"fast": always("broken"), "slow": always("reply")})
    town.ask(20.0, 300.0)
    town.run(1000.0)

    assert town.outcomes == {"completed": 6000}
    assert 6 < town.attempts["fast"] < 30  # probes, one after the other
