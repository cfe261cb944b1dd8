"""The paper's metrics by hand-counted examples."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.metrics import RequestOutcome, RequestRecord, measure, nearest_rank


def done(
    bucket: str, latency_s: float, *, arrived_at: float = 0.0, deadline: float = 1e9
) -> RequestRecord:
    return RequestRecord(
        bucket, arrived_at, deadline, arrived_at + latency_s, RequestOutcome.COMPLETED
    )


def shed(bucket: str, *, arrived_at: float = 0.0) -> RequestRecord:
    return RequestRecord(bucket, arrived_at, 1e9, arrived_at, RequestOutcome.SHED)


@pytest.mark.parametrize(
    ("percent", "expected"), [(5, 15), (30, 20), (40, 20), (50, 35), (95, 50), (100, 50)]
)
def test_nearest_rank_takes_a_value_that_occurred(percent: float, expected: int) -> None:
    assert nearest_rank([15, 20, 35, 40, 50], percent) == expected


def test_rank_19_of_20_is_the_95th_percentile_whatever_binary_fractions_say() -> None:
    assert nearest_rank(list(range(1, 21)), 95) == 19
    assert nearest_rank(list(range(1, 101)), 7) == 7


def test_of_nothing_there_is_no_percentile() -> None:
    assert nearest_rank([], 50) is None


@pytest.mark.parametrize("percent", [0, -1, 100.5])
def test_a_percentage_outside_its_range_is_a_mistake(percent: float) -> None:
    with pytest.raises(ValueError, match="percent="):
        nearest_rank([1.0], percent)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0.1, 100))
def test_at_least_so_many_values_do_not_exceed_it_and_fewer_do_not_exceed_any_smaller(
    values: list[float], percent: float
) -> None:
    ordered = sorted(values)
    found = nearest_rank(ordered, percent)

    assert found is not None
    needed = percent * len(ordered) / 100 - 1e-6
    assert sum(v <= found for v in ordered) >= needed
    assert sum(v < found for v in ordered) < needed + 2e-6 or found == ordered[0]


def test_percentiles_speak_of_their_buckets_and_of_completed_requests_only() -> None:
    records = [done("short", s / 10) for s in range(1, 11)]
    records += [done("long", 5.0), done("xlong", 9.0), done("medium", 7.0), shed("short")]

    found = measure(records)

    assert (found.short_p90_s, found.short_p95_s) == (0.9, 1.0)
    assert found.long_p90_s == 9.0
    assert found.p95_s == 9.0


def test_a_shed_request_counts_as_missed_everywhere() -> None:
    found = measure(
        [done("short", 0.5, deadline=1.0), done("long", 3.0, deadline=1.0), shed("xlong")]
    )

    assert found.completion_rate == pytest.approx(2 / 3)
    assert found.deadline_satisfaction == pytest.approx(1 / 3)
    assert found.shed == {"short": 0, "medium": 0, "long": 0, "xlong": 1}


def test_exactly_at_the_deadline_is_in_time() -> None:
    assert measure([done("short", 1.0, deadline=1.0)]).deadline_satisfaction == 1.0


def test_goodput_counts_from_the_first_arrival_to_the_last_completion() -> None:
    records = [
        shed("long", arrived_at=10.0),
        done("short", 1.0, arrived_at=12.0),
        done("short", 2.0, arrived_at=18.0),
    ]

    found = measure(records)

    assert found.makespan_s == 10.0
    assert found.useful_goodput_per_s == 0.2


def test_where_nothing_completed_there_is_no_latency_and_no_goodput() -> None:
    failed = RequestRecord("short", 0.0, 1.0, 0.5, RequestOutcome.FAILED)

    found = measure([shed("long"), failed])

    assert (found.p95_s, found.short_p95_s, found.makespan_s) == (None, None, None)
    assert (found.completion_rate, found.useful_goodput_per_s) == (0.0, 0.0)


def test_deferrals_add_up() -> None:
    records = [
        RequestRecord("long", 0.0, 9.0, 1.0, RequestOutcome.COMPLETED, deferrals=2),
        RequestRecord("long", 0.0, 9.0, 1.0, RequestOutcome.SHED, deferrals=3),
    ]

    assert measure(records).deferrals == 5


def test_a_records_own_latency_and_verdict() -> None:
    late = done("short", 2.0, arrived_at=1.0, deadline=2.5)

    assert (late.latency_s, late.in_time) == (2.0, False)
    assert done("short", 1.0, deadline=1.0).in_time
    assert not shed("short").in_time


def test_no_requests_at_all_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="no requests"):
        measure([])
