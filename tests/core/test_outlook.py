"""What the scheduler expects of a request that might come: why it would wait, and until when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.events import Pinned, RefusalCause, Throttled
from penstock.core.scheduler import Scheduler
from penstock.core.snapshot import Outlook
from tests.core.story import arrive, complete, refuse_first, request, scheduler, tell, upstream


def outlook(penstock: Scheduler, now: float, model: str = "") -> Outlook | None:
    return penstock.waiting.outlook(request(999, model=model), now=now)


def test_with_room_it_begins_at_once_and_with_a_backlog_after_it() -> None:
    penstock = scheduler(upstream(window=2, base_s=3.0))

    assert outlook(penstock, 0.0) == Outlook(None, 0.0, 3.0)
    arrive(penstock, *(request(id_) for id_ in range(1, 6)))
    busy = outlook(penstock, 0.0)
    assert busy == Outlook(None, (2 * 3.0 + 3 * 3.0) / 2, 3.0)
    assert busy.done_in_s == 10.5


@pytest.mark.parametrize(
    ("cause", "told"),
    [
        (RefusalCause.QUOTA, "quota"),
        (RefusalCause.RATE, "rate"),
        (RefusalCause.OVERLOAD, "overload"),
        (RefusalCause.SLOW_FIRST_TOKEN, "overload"),
        (RefusalCause.DENIED, "down"),
    ],
)
def test_a_pause_is_told_with_its_cause_and_its_rest(cause: RefusalCause, told: str) -> None:
    penstock = scheduler(window=1)
    refuse_first(penstock)
    arrive(penstock, request(1))
    tell(penstock, (1.0, Throttled(1, cause, 1.8)))

    paused = outlook(penstock, 1.5)
    assert paused is not None
    assert paused.cause == told
    assert paused.start_in_s >= 1.2


def test_one_open_upstream_is_enough_and_a_pinned_pause_closes_one() -> None:
    penstock = scheduler(upstream("a"), upstream("b", base_s=9.0))
    tell(penstock, (0.0, Pinned("pause", "a", 0.0, 50.0)))
    assert outlook(penstock, 1.0) == Outlook(None, 0.0, 9.0)

    tell(penstock, (1.0, Pinned("pause", "b", 0.0, 20.0)))
    assert outlook(penstock, 2.0) == Outlook("down", 18.0, 1.0)  # "b" first, "a" is faster


def test_a_model_that_nobody_serves_has_none() -> None:
    assert outlook(scheduler(upstream(models=("a",))), 0.0, "b") is None


@given(st.lists(st.sampled_from(["a", "b", "c"]), max_size=12), st.booleans())
def test_to_ask_changes_no_decision(models: list[str], asked_first: bool) -> None:
    def story(*, asks: bool) -> list[object]:
        penstock = scheduler(
            upstream("one", models=("a", "b")), upstream("two", models=("b", "c"), base_s=2.0)
        )
        found: list[object] = []
        for id_, model in enumerate(models):
            if asks:
                for each in ("c", "b", "a") if asked_first else ("a", "c"):
                    outlook(penstock, id_ * 0.1, each)
            found += arrive(penstock, request(id_, at=id_ * 0.1, model=model))
        for word in list(found):
            if word[0] == "dispatch":  # type: ignore[index]
                found += complete(penstock, word[1], now=5.0)  # type: ignore[index]
        return found

    assert story(asks=True) == story(asks=False)
