"""An upstream that does not answer, or breaks every other attempt, while another serves."""

import pytest

from penstock.core.events import Arrived, Cancelled, Failed, FirstToken, Woke
from penstock.core.scheduler import Scheduler
from tests.core.story import arrive, complete, request, scheduler, sent, tell, upstream
from tests.core.town import Town, always, partly


def preferred_and_spare() -> Scheduler:
    """Return two upstreams with room, of which the first is the faster at first sight."""
    return scheduler(
        upstream("first", window=16.0, base_s=0.1), upstream("spare", window=16.0, base_s=0.3)
    )


def where(penstock: Scheduler, id_: int, *, at: float) -> str:
    """Let a request arrive and be answered at once; return where it went."""
    (action,) = penstock.handle(Arrived(request(id_, at=at)), now=at)
    complete(penstock, id_, now=at + 0.1)
    return str(getattr(action, "upstream", ""))


def test_an_upstream_that_never_answers_is_held_back_while_another_serves() -> None:
    town = Town(
        preferred_and_spare(),
        {"first": always("hang"), "spare": always("reply")},
        answer_s=0.3,
        patience_s=60.0,
    )
    town.ask(5.0, 120.0)
    town.run(400.0)

    # A window full before anybody could know, then probes, further and further apart.
    assert town.outcomes["left"] == town.attempts["first"] <= 16 + 6


def test_callers_that_leave_before_anybody_could_know_tell_too() -> None:
    town = Town(
        preferred_and_spare(),
        {"first": always("hang"), "spare": always("reply")},
        answer_s=0.3,
        patience_s=2.0,
    )
    town.ask(5.0, 120.0)
    town.run(400.0)

    assert town.attempts["first"] <= 26


def test_callers_that_leave_early_say_nothing() -> None:
    penstock = scheduler(upstream("first", window=16.0), upstream("spare", window=16.0, base_s=9.0))
    for id_ in range(40):
        assert arrive(penstock, request(id_, at=id_ * 1.0)) == [("dispatch", id_, "first")]
        tell(penstock, (id_ + 0.5, Cancelled(id_)))


def test_a_reply_that_has_begun_is_no_silence() -> None:
    penstock = preferred_and_spare()
    arrive(penstock, request(0))
    tell(penstock, (0.1, FirstToken(0)))

    assert where(penstock, 1, at=100.0) == "first"


def test_silence_is_measured_by_what_was_predicted() -> None:
    penstock = scheduler(
        upstream("first", window=9.0, base_s=0.1, s_per_token=0.01),
        upstream("spare", window=9.0, base_s=99.0),
    )
    arrive(penstock, request(0, cost=200.0))  # 2.1 s

    assert sent(penstock.handle(Arrived(request(1, at=20.0)), now=20.0)) == [1]
    assert arrive(penstock, request(2, at=22.0)) == [("dispatch", 2, "spare")]


def test_what_answers_now_and_then_is_not_silent() -> None:
    penstock = preferred_and_spare()
    arrive(penstock, request(0))  # this one alone hangs
    for id_ in range(1, 40):
        assert where(penstock, id_, at=id_ * 4.0) == "first"


def test_the_first_answer_after_a_silence_ends_the_doubt() -> None:
    penstock = preferred_and_spare()
    arrive(penstock, request(0))
    assert where(penstock, 1, at=6.0) == "spare"
    assert penstock.snapshot().upstreams["first"].probation

    tell(penstock, (7.0, FirstToken(0)))
    assert not penstock.snapshot().upstreams["first"].probation
    told = arrive(penstock, *(request(id_, at=8.0) for id_ in range(2, 40)))
    assert sum(word[2] == "first" for word in told) == 15


def test_an_upstream_alone_that_serves_again_is_in_doubt_no_longer() -> None:
    penstock = scheduler(upstream("only", window=16.0))
    for id_ in range(12):
        arrive(penstock, request(id_, at=id_ * 40.0))
        tell(penstock, (id_ * 40.0 + 0.1, Failed(id_)))
    assert penstock.snapshot().upstreams["only"].probation

    arrive(penstock, request(12, at=600.0))
    complete(penstock, 12, now=600.1)
    assert not penstock.snapshot().upstreams["only"].probation


def test_an_upstream_alone_is_used_whatever_it_does() -> None:
    for rule in (partly(0.5, "hang"), partly(0.3, "broken")):
        town = Town(
            scheduler(upstream("only", window=99.0), retry_share=0.1),
            {"only": rule},
            patience_s=8.0,
        )
        town.ask(5.0, 60.0)
        town.run(400.0)

        assert town.attempts["only"] >= 300
        assert town.outcomes["completed"] > 130


def test_where_all_are_in_doubt_all_are_used() -> None:
    penstock = preferred_and_spare()
    told = arrive(penstock, *(request(id_) for id_ in range(40)))
    assert len(told) == 32

    tell(penstock, (10.0, Woke()), *((10.0, Cancelled(id_)) for id_ in range(8)))
    assert penstock.snapshot().in_flight == 32


@pytest.mark.parametrize("share", [0.5, 0.7])
def test_an_upstream_that_breaks_every_other_attempt_is_taken_out(share: float) -> None:
    town = Town(preferred_and_spare(), {"first": partly(share, "broken"), "spare": always("reply")})
    town.ask(20.0, 300.0)
    town.run(1000.0)

    assert town.outcomes == {"completed": 6000}
    assert town.attempts["first"] < 300


def test_an_upstream_that_breaks_an_attempt_now_and_then_stays_in_use() -> None:
    town = Town(preferred_and_spare(), {"first": partly(0.05, "broken"), "spare": always("reply")})
    town.ask(20.0, 300.0)
    town.run(1000.0)

    assert town.outcomes == {"completed": 6000}
    assert town.attempts["first"] > 2000


def test_who_has_recovered_is_fully_used_again_soon() -> None:
    town = Town(preferred_and_spare(), {"first": partly(0.6, "broken"), "spare": always("reply")})
    town.ask(20.0, 200.0)
    town.run(100.0)
    town.rules["first"] = always("reply")
    town.run(150.0)

    before = town.attempts["first"]
    town.run(200.0)
    assert town.attempts["first"] - before > 900


def test_replies_to_attempts_sent_before_the_doubt_do_not_end_it() -> None:
    penstock = preferred_and_spare()
    arrive(penstock, *(request(id_) for id_ in range(14)))
    for id_ in range(0, 10, 2):
        complete(penstock, id_, now=1.0)
        tell(penstock, (1.0, Failed(id_ + 1)))
    for id_ in range(10, 14):
        complete(penstock, id_, now=1.5)
    assert penstock.snapshot().upstreams["first"].probation
    assert where(penstock, 20, at=2.0) == "spare"
