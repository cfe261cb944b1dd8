"""What the scheduler is told: the ladder, the noise, and trap (a) of the deadlines."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from penstock.core.model import TokenEstimate, bucket_of
from penstock.predict.sampled_errors import SampledErrors
from penstock.sim.calls import BUCKET_RANGE_TOKENS, Item, Knowledge
from penstock.sim.information import (
    EVERYTHING,
    ClassPlan,
    Informant,
    coarse_estimate,
    constant_estimate,
)

PLANS = (
    ClassPlan("interactive", ("short",), 4.0),
    ClassPlan("heavy", ("medium", "long", "xlong")),
)
DEADLINES = {"short": 1.0, "medium": 4.0, "long": 15.0, "xlong": 60.0}
CONSTANT = TokenEstimate(100.0, 1000.0, "constant")


def informant(level: str, *, noise: float = 0.0, sampled: SampledErrors | None = None) -> Informant:
    return Informant(
        level,
        noise=noise,
        classes=PLANS,
        deadline_s=DEADLINES,
        constant=CONSTANT,
        sampled=sampled,
    )


def told(level: str, tokens: int) -> Knowledge:
    return informant(level).inform(Item(0.0, tokens), bucket_of(tokens), Random(1))


def test_none_knows_one_class_one_prior_and_the_loosest_deadline_of_all() -> None:
    for tokens in (20, 100, 500, 3000):
        known = told("none", tokens)
        assert (known.traffic_class, known.estimate, known.deadline_s) == (
            EVERYTHING,
            CONSTANT,
            60.0,
        )
    assert [c.name for c in informant("none").classes()] == [EVERYTHING]


def test_class_knows_the_class_but_neither_size_nor_a_deadline_that_tells_it() -> None:
    short, medium, xlong = told("class", 20), told("class", 100), told("class", 3000)

    assert (short.traffic_class, short.deadline_s) == ("interactive", 1.0)
    assert medium == xlong
    assert (medium.traffic_class, medium.deadline_s) == ("heavy", 60.0)
    assert short.estimate == medium.estimate == CONSTANT


def test_coarse_knows_the_bucket_and_its_deadline() -> None:
    for tokens, bucket in ((20, "short"), (100, "medium"), (500, "long"), (3000, "xlong")):
        known = told("coarse", tokens)
        assert known.estimate == coarse_estimate(bucket)
        assert known.deadline_s == DEADLINES[bucket]


def test_the_oracle_knows_the_count() -> None:
    known = told("oracle", 777)

    assert (known.estimate.p50_tokens, known.estimate.p90_tokens) == (777.0, 777.0)


def test_the_predicted_level_repeats_a_recorded_error() -> None:
    recorded = SampledErrors([(100.0, 150.0, 300.0)])

    known = informant("predicted", sampled=recorded).inform(Item(0.0, 200), "medium", Random(1))

    assert known.estimate.p50_tokens == pytest.approx(300.0)
    assert known.estimate.p90_tokens == pytest.approx(600.0)


def test_a_call_with_a_deadline_of_its_own_keeps_it_at_every_level() -> None:
    item = Item(0.0, 3000, deadline_s=7.0)

    for level in ("none", "class", "coarse", "oracle"):
        assert informant(level).inform(item, "xlong", Random(1)).deadline_s == 7.0


@given(st.floats(0.0, 0.99), st.integers(1, 4096), st.integers(0, 1000))
def test_noise_multiplies_the_whole_prior_by_one_factor_within_its_bounds(
    noise: float, tokens: int, seed: int
) -> None:
    clean = told("coarse", tokens).estimate
    noisy = (
        informant("coarse", noise=noise)
        .inform(Item(0.0, tokens), bucket_of(tokens), Random(seed))
        .estimate
    )

    assert (1 - noise) * clean.p90_tokens <= noisy.p90_tokens * (1 + 1e-9)
    assert noisy.p90_tokens <= (1 + noise) * clean.p90_tokens * (1 + 1e-9)
    if noisy.p50_tokens > 1:
        assert noisy.p50_tokens / clean.p50_tokens == pytest.approx(
            noisy.p90_tokens / clean.p90_tokens
        )


def test_every_level_draws_as_often_so_that_levels_meet_the_same_world() -> None:
    after = set()
    for level in ("none", "class", "coarse", "oracle"):
        chance = Random(9)
        informant(level, noise=0.3).inform(Item(0.0, 100), "medium", chance)
        after.add(chance.random())

    assert len(after) == 1


@pytest.mark.parametrize("bucket", sorted(BUCKET_RANGE_TOKENS))
def test_a_coarse_prior_lies_within_its_bucket(bucket: str) -> None:
    low, high = BUCKET_RANGE_TOKENS[bucket]
    found = coarse_estimate(bucket)

    assert low < found.p50_tokens < found.p90_tokens < high


def test_the_constant_prior_is_the_mixes_median_and_90th_percentile() -> None:
    balanced = constant_estimate({"short": 0.4, "medium": 0.3, "long": 0.2, "xlong": 0.1})
    only_long = constant_estimate({"long": 1.0})

    assert balanced.p50_tokens == pytest.approx(65 * (256 / 65) ** (1 / 3))
    assert balanced.p90_tokens == pytest.approx(1024)
    assert only_long.p50_tokens == pytest.approx(coarse_estimate("long").p50_tokens)


def test_classes_carry_their_weights_and_the_loosest_deadline_of_their_buckets() -> None:
    found = {c.name: (c.weight, c.deadline_s) for c in informant("coarse").classes()}

    assert found == {"interactive": (4.0, 1.0), "heavy": (1.0, 60.0)}
