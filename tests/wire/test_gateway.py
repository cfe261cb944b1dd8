"""A gateway's limit is one a minute only if its headers say so; a wrong guess would starve."""

import pytest

from penstock.core.events import LimitsSeen
from penstock.wire.limits import limits_of
from penstock.wire.waits import NO_NUMBER

NOON = 1_795_435_200.0


def seen(**said: str) -> LimitsSeen | None:
    return limits_of("a", {k.replace("_", "-"): v for k, v in said.items()}, wall_now=NOON)


def plain(prefix: str, limit: str, remaining: str, reset: str) -> LimitsSeen | None:
    headers = {
        f"{prefix}limit": limit,
        f"{prefix}remaining": remaining,
        f"{prefix}reset": reset,
    }
    return limits_of("a", headers, wall_now=NOON)


@pytest.mark.parametrize("prefix", ["x-ratelimit-", "ratelimit-"])
@pytest.mark.parametrize(
    ("limit", "per_min"),
    [("10;w=1", 600.0), ("10, 10;w=1", 600.0), ("10, 10;w=10", 60.0), ("100, 100;w=60", 100.0)],
)
def test_a_window_that_is_told_scales_the_limit_to_a_minute(
    prefix: str, limit: str, per_min: float
) -> None:
    epoch_s = str(int(NOON) + 20)

    assert plain(prefix, limit, "7", epoch_s) == LimitsSeen("a", per_min, 7, 20.0)


@pytest.mark.parametrize("prefix", ["x-ratelimit-", "ratelimit-"])
@pytest.mark.parametrize(
    ("reset", "known"),
    [("1", False), ("30", False), ("31", True), ("60", True), ("61", False), ("3000", False),
     ("", False)],
)  # fmt: skip
def test_a_window_that_is_not_told_is_a_minute_only_if_the_reset_fits(
    prefix: str, reset: str, known: bool
) -> None:
    expected = LimitsSeen("a", 10, 9, float(reset)) if known else None

    assert plain(prefix, "10", "9", reset) == expected


def test_a_reset_in_milliseconds_since_1970_is_understood() -> None:
    at_ms = str(int((NOON + 45) * 1000))

    assert plain("x-ratelimit-", "20", "19", at_ms) == LimitsSeen("a", 20, 19, 45.0)


@pytest.mark.parametrize("window_s", [3600, 86_400])
def test_a_window_above_a_minute_is_not_paced_evenly(window_s: int) -> None:
    assert plain("ratelimit-", f"1000, 1000;w={window_s}", "999", "50") is None


def test_the_drafts_name_their_windows_in_a_policy() -> None:
    fields = LimitsSeen("a", 600.0, 50, 3.0)

    assert seen(
        ratelimit_policy='"default";q=100;w=10', ratelimit='"default";r=50;t=3'
    ) == fields  # fmt: skip
    assert seen(
        ratelimit_policy="100;w=10", ratelimit="limit=100, remaining=50, reset=3"
    ) == fields  # fmt: skip
    assert seen(
        ratelimit_policy="100;w=10",
        ratelimit_limit="100",
        ratelimit_remaining="50",
        ratelimit_reset="3",
        x_ratelimit_limit="100",
        x_ratelimit_remaining="50",
        x_ratelimit_reset="9",
    ) == fields  # fmt: skip


def test_of_several_policies_the_tightest_counts_and_what_is_left_of_another_does_not() -> None:
    policy = '"burst";q=10;w=1, "minute, each";q=100;w=60, "day";q=50;w=86400'

    at_burst = seen(ratelimit_policy=policy, ratelimit='"burst";r=9;t=1')
    assert at_burst == LimitsSeen("a", 100.0)
    at_minute = seen(ratelimit_policy=policy, ratelimit='"minute, each";r=42;t=17')
    assert at_minute == LimitsSeen("a", 100.0, 42, 17.0)


@pytest.mark.parametrize(
    "policy", ["", "w=1", "ten;w=1", "10;w=0", '"bytes";q=9;w=1;qu="content-bytes"',
               ",;=", '"open', "0;w=1"],
)  # fmt: skip
def test_a_policy_that_says_nothing_of_requests_is_no_limit(policy: str) -> None:
    assert seen(ratelimit_policy=policy, ratelimit="nonsense") is None


@pytest.mark.parametrize("policy", ["10;w=soon", '"a";q=-1;w=1'])
def test_a_policy_whose_number_is_none_is_told_to_the_gate_as_no_number(policy: str) -> None:
    found = seen(ratelimit_policy=policy, ratelimit="nonsense")
    assert isinstance(found, LimitsSeen)
    assert found.limit_requests is NO_NUMBER
