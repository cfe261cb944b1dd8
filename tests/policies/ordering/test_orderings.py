"""Which of a class's requests goes next: each ordering's story, told through the scheduler."""

import pytest

from penstock.core.events import Completed, Failed, Woke
from penstock.core.scheduler import Scheduler
from penstock.core.settings import PolicySpec
from penstock.errors import ConfigError
from tests.core.story import arrive, request, scheduler, sent, tell, upstream


def backlogged(kind: str, *waiting: tuple[float, float], **options: float) -> Scheduler:
    """Return a scheduler whose one place is taken while (cost, deadline) wait as 1, 2, 3, ...

    At first sight a token takes 10 ms here, and nothing else takes time.
    """
    penstock = scheduler(upstream(base_s=0.0, s_per_token=0.01), ordering=PolicySpec(kind, options))
    arrive(penstock, request(0, cost=1.0))
    arrive(
        penstock,
        *(
            request(id_, cost=cost, deadline=deadline)
            for id_, (cost, deadline) in enumerate(waiting, start=1)
        ),
    )
    return penstock


def order_of(penstock: Scheduler, *, start: float = 0.0, step_s: float = 0.0) -> list[int]:
    """Serve all, one every `step_s`, and return the order."""
    order, flying, now = [], [0], start
    while flying:
        flying = sent(penstock.handle(Completed(flying[0], None), now=now))
        order += flying
        now += step_s
    return order


WAITING = ((300.0, 90.0), (100.0, 50.0), (200.0, 10.0), (100.0, 90.0))


@pytest.mark.parametrize(
    ("kind", "order"),
    [("fifo", [1, 2, 3, 4]), ("edf", [3, 2, 1, 4]), ("shortest_first", [2, 4, 3, 1])],
)
def test_each_key_gives_its_order_and_ties_go_by_arrival(kind: str, order: list[int]) -> None:
    assert order_of(backlogged(kind, *WAITING)) == order


def test_feasible_set_serves_the_most_pressing_first() -> None:
    assert order_of(backlogged("feasible_set", *WAITING, price=0.0, patience=100)) == [3, 2, 1, 4]


def test_feasible_set_puts_the_hopeless_last_and_shortest_first() -> None:
    penstock = backlogged(
        "feasible_set", (900.0, 5.0), (400.0, 5.0), (100.0, 20.0), price=0.0, patience=100
    )

    assert order_of(penstock, start=6.0) == [3, 2, 1]


def test_feasible_set_sees_a_request_become_hopeless_while_it_waits() -> None:
    penstock = backlogged(
        "feasible_set", (100.0, 3.0), (100.0, 4.0), (100.0, 90.0), price=0.0, patience=100
    )

    # At 2 s the first can just make it; at 3.5 s the second cannot any more.
    assert order_of(penstock, start=2.0, step_s=1.5) == [1, 3, 2]


def test_feasible_set_charges_length_its_price() -> None:
    waiting = ((1000.0, 30.0), (100.0, 22.0))  # latest starts: 20 and 21

    assert order_of(backlogged("feasible_set", *waiting, price=0.0, patience=9)) == [1, 2]
    assert order_of(backlogged("feasible_set", *waiting, price=1.0, patience=9)) == [2, 1]


def test_feasible_set_serves_the_oldest_once_in_so_many() -> None:
    penstock = backlogged("feasible_set", (500.0, 1.0), *[(10.0, 50.0)] * 4, price=0.0, patience=3)

    assert order_of(penstock, start=2.0) == [2, 3, 1, 4, 5]


@pytest.mark.parametrize("kind", ["fifo", "edf", "shortest_first", "feasible_set"])
def test_a_retried_request_has_kept_its_place(kind: str) -> None:
    penstock = scheduler(ordering=PolicySpec(kind))
    arrive(penstock, *(request(id_, deadline=900.0) for id_ in (1, 2, 3)))
    tell(penstock, (1.0, Failed(1, retryable=True)), (2.0, Woke()))

    assert tell(penstock, (3.0, Completed(2, 100))) == [("dispatch", 1, "default")]


@pytest.mark.parametrize("options", [{"price": -1.0}, {"patience": 1}, {"price": float("nan")}])
def test_feasible_set_refuses_options_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(
        ConfigError,
        match=r"(price=.*must be a finite number >= 0|patience=.*must be a whole number >= 2)",
    ):
        scheduler(ordering=PolicySpec("feasible_set", options))
