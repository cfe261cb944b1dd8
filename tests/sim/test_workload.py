"""Workloads: lengths within their buckets, shares as mixed, ids in order of arrival."""

from collections import Counter
from itertools import count

import pytest

from penstock.core.model import TokenEstimate, bucket_of
from penstock.sim.calls import BUCKET_RANGE_TOKENS, Item
from penstock.sim.information import ClassPlan, Informant
from penstock.sim.workload import LogNormalTokens, TokenRange, build_workload, drawn_items

MIX = {"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1}
DEADLINES = {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0}


def items(
    n: int, *, seed: int = 1, mix: dict[str, float] | None = None, prompts: tuple[int, int] = (0, 0)
) -> list[Item]:
    return list(
        drawn_items(
            (float(t) for t in count()),
            count=n,
            mix=mix or MIX,
            seed=seed,
            prompt_tokens=TokenRange(*prompts),
        )
    )


def informant(level: str) -> Informant:
    plans = (ClassPlan("all", tuple(BUCKET_RANGE_TOKENS)),)
    return Informant(
        level, noise=0.0, classes=plans, deadline_s=DEADLINES, constant=TokenEstimate(1, 2)
    )


def test_buckets_come_in_the_shares_of_the_mix() -> None:
    found = Counter(bucket_of(item.output_tokens) for item in items(20_000))

    for bucket, share in MIX.items():
        assert found[bucket] / 20_000 == pytest.approx(share, abs=0.015)


def test_a_bucket_without_a_share_never_comes() -> None:
    found = items(500, mix={"short": 0.0, "long": 1.0})

    assert {bucket_of(item.output_tokens) for item in found} == {"long"}


@pytest.mark.parametrize("bucket", sorted(BUCKET_RANGE_TOKENS))
def test_lengths_are_loguniform_over_the_whole_bucket(bucket: str) -> None:
    low, high = BUCKET_RANGE_TOKENS[bucket]
    lengths = sorted(item.output_tokens for item in items(20_000, mix={bucket: 1.0}))

    assert lengths[0] == pytest.approx(low, rel=0.01, abs=1)
    assert lengths[-1] == pytest.approx(high, rel=0.01, abs=1)
    assert lengths[10_000] == pytest.approx((low * high) ** 0.5, rel=0.05)
    assert low <= lengths[0] <= lengths[-1] <= high


def test_lognormal_prompts_have_their_median_and_spread_and_end_at_the_most() -> None:
    times = (float(t) for t in count())
    prompts = LogNormalTokens(median=1000, sigma=1.0, most=5000)

    drawn = drawn_items(times, count=20_000, mix=MIX, seed=1, prompt_tokens=prompts)
    found = sorted(item.prompt_tokens for item in drawn)

    assert found[10_000] == pytest.approx(1000, rel=0.05)
    assert found[16_827] == pytest.approx(1000 * 2.718, rel=0.05)  # one sigma above
    assert found[-1] == 5000


def test_prompts_lie_in_their_range_and_leave_the_lengths_alone() -> None:
    with_prompts = items(300, prompts=(10, 40))

    assert all(10 <= item.prompt_tokens <= 40 for item in with_prompts)
    assert [i.output_tokens for i in with_prompts] == [i.output_tokens for i in items(300)]


def test_the_seed_decides_everything() -> None:
    assert items(50, seed=3) == items(50, seed=3)
    assert items(50, seed=3) != items(50, seed=4)


def test_requests_are_numbered_by_arrival_and_keep_their_true_deadline() -> None:
    unsorted = [Item(5.0, 3000), Item(1.0, 20), Item(1.0, 100)]

    loads = build_workload(unsorted, informant("none"), deadline_s=DEADLINES, seed=1).loads

    assert [(x.request.id, x.request.arrived_at, x.output_tokens) for x in loads] == [
        (1, 1.0, 20),
        (2, 1.0, 100),
        (3, 5.0, 3000),
    ]
    assert [x.deadline for x in loads] == [2.0, 5.0, 65.0]
    assert [x.request.deadline for x in loads] == [61.0, 61.0, 65.0]
    assert [x.bucket for x in loads] == ["short", "medium", "xlong"]
