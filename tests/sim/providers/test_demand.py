"""Prompts, prompt caches, jitter and stragglers: the same for every model that serves by itself."""

import math
from statistics import NormalDist, median

import pytest

from penstock.errors import ConfigError
from penstock.sim.providers.base import Job, ProviderEvent
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import ends, firsts, run

ROOMY = {
    "slots": {"model": "slots", "slots": 10_000, "tokens_per_s": 100.0, "ttft_s": 0.5},
    "shared": {"model": "shared", "capacity": 10_000, "tokens_per_s": 100.0, "ttft_s": 0.5},
    "thrash": {"model": "thrash", "capacity": 10_000, "tokens_per_s": 100.0, "ttft_s": 0.5},
    "linear": {
        "model": "linear",
        "base_s": 0.5,
        "s_per_token": 0.01,
        "capacity": 10_000,
        "jitter": 0.0,
    },
    "serial": {"model": "serial", "tokens_per_s": 100.0, "ttft_s": 0.5},
    "pool": {"model": "pool", "slots": 10_000, "tokens_per_s": 100.0, "ttft_s": 0.5},
    "autoscale": {"model": "autoscale", "slots": 10_000, "tokens_per_s": 100.0, "ttft_s": 0.5},
    "cloud": {
        "model": "cloud",
        "capacity": 10_000,
        "sigma": 0.0,
        "tokens_per_s": 100.0,
        "ttft_s": 0.5,
    },
}
WIDE = sorted(set(ROOMY) - {"serial"})
"""Models that serve many at once, each as if it were alone."""


def lone(model: str, job: Job, **params: object) -> list[ProviderEvent]:
    provider = build_provider({**ROOMY[model], **params}, seed=1)
    assert provider.submit(job, now=0.0) is None
    return [*provider.advance(now=1e6)]


def service_times(model: str, jobs: int, **params: object) -> list[float]:
    provider = build_provider({**ROOMY[model], **params}, seed=1)
    found = ends(run(provider, [(0.0, n, 100) for n in range(jobs)]))
    return sorted(found.values())


@pytest.mark.parametrize("model", sorted(ROOMY))
def test_a_prompt_delays_the_first_token_by_its_length(model: str) -> None:
    (first, end) = lone(model, Job(1, 100, 2000), prefill_tokens_per_s=1000.0)

    assert [first.at, end.at] == pytest.approx([2.5, 3.5])
    assert (first.cached_tokens, end.cached_tokens) == (None, None)


@pytest.mark.parametrize("model", sorted(ROOMY))
def test_what_is_cached_costs_nothing_and_is_stated(model: str) -> None:
    (first, end) = lone(model, Job(1, 100, 2000), prefill_tokens_per_s=1000.0, cached_share=1.0)

    assert [first.at, end.at] == pytest.approx([0.6, 1.6])
    assert (first.cached_tokens, end.cached_tokens) == (1900, 1900)


def test_the_share_of_cached_prompts_is_as_asked_for_and_the_others_state_none() -> None:
    provider = build_provider({**ROOMY["slots"], "cached_share": 0.3}, seed=1)
    for number in range(3000):
        provider.submit(Job(number, 1, 1000), now=0.0)

    stated = [e.cached_tokens for e in provider.advance(now=1e6) if e.what == "finished"]

    assert set(stated) == {0, 950}
    assert stated.count(950) / 3000 == pytest.approx(0.3, abs=0.03)


@pytest.mark.parametrize("model", WIDE)
def test_jitter_is_lognormal_around_the_service_time(model: str) -> None:
    key = "sigma" if model == "cloud" else "jitter"

    found = service_times(model, 2000, **{key: 0.6})

    logs = [math.log(each / 1.5) for each in found]
    fitted = NormalDist.from_samples(logs)
    assert median(found) == pytest.approx(1.5, rel=0.06)
    assert [fitted.mean, fitted.stdev] == pytest.approx([0.0, 0.6], abs=0.05)


@pytest.mark.parametrize("model", WIDE)
def test_a_share_of_stragglers_takes_so_many_times_as_long(model: str) -> None:
    found = service_times(model, 2000, stragglers={"share": 0.1, "factor": 7})

    slow = [each for each in found if each > 2.0]
    assert len(slow) / 2000 == pytest.approx(0.1, abs=0.02)
    assert slow == pytest.approx([7 * 1.5] * len(slow))
    assert found[0] == pytest.approx(1.5)


@pytest.mark.parametrize("model", WIDE)
def test_luck_goes_with_the_request_whatever_came_before(model: str) -> None:
    bad = {"stragglers": {"share": 0.3}, "cached_share": 0.5}

    forwards = build_provider({**ROOMY[model], **bad}, seed=1)
    backwards = build_provider({**ROOMY[model], **bad}, seed=1)

    first = ends(run(forwards, [(0.0, n, 100) for n in range(50)]))
    second = ends(run(backwards, [(0.0, n, 100) for n in reversed(range(50))]))
    assert first == second


def test_a_straggler_streams_its_tokens_evenly_and_slowly() -> None:
    table = {**ROOMY["slots"], "ttft_s": 0.0, "stragglers": {"share": 1.0, "factor": 10}}
    provider = build_provider(table, seed=1)
    provider.submit(Job(1, 100), now=0.0)
    provider.advance(now=0.0)

    assert [provider.tokens_done(1, now=now) for now in (0.05, 5.0, 9.99)] == [1, 50, 99]


def test_a_change_may_bring_noise() -> None:
    changes = [{"at_s": 10.0, "stragglers": {"share": 1.0, "factor": 2}}]
    provider = build_provider({**ROOMY["slots"], "changes": changes}, seed=1)

    seen = run(provider, [(0.0, 1, 100), (10.0, 2, 100)])

    assert ends(seen) == {1: 1.5, 2: 13.0}
    assert firsts(seen)[2] == 11.0


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"stragglers": 5}, "provider.stragglers = 5: must be a table"),
        ({"stragglers": {"share": 2}}, "provider.stragglers.share = 2: must be a finite number"),
        ({"stragglers": {"sharp": 0.1}}, "did you mean share?"),
        ({"cached_share": -0.1}, "provider.cached_share = -0.1: must be a finite number >= 0"),
        ({"prefill_tokens_per_s": 0}, "provider.prefill_tokens_per_s = 0: must be a finite"),
        ({"keeps_cancelled": 1}, "provider.keeps_cancelled = 1: must be true or false"),
        ({"spells": 3}, "provider.spells = 3: must be a table"),
        ({"spells": {"for_s": 60}}, "provider.spells.for_s = 60.0: must be below every_s"),
        ({"spells": {"factor": 0}}, "provider.spells.factor = 0: must be a finite number"),
        (
            {"changes": [{"at_s": 1, "spells": {}}]},
            "provider.changes[0].spells = {}: is no key of this table",
        ),
    ],
)
def test_noise_that_cannot_be_is_refused(params: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build_provider({"model": "slots", **params}, seed=0)

    assert message in str(refused.value)


@pytest.mark.parametrize("model", sorted(ROOMY))
def test_luck_and_a_cached_prompt_that_are_known_are_not_drawn(model: str) -> None:
    unlucky = {"stragglers": {"share": 1.0, "factor": 9.0}, "cached_share": 0.5}
    job = Job(1, 100, 1000, luck=(2.0, 0.5), cached_tokens=600)

    first, done = lone(model, job, prefill_tokens_per_s=1000.0, **unlucky)

    assert first.at == pytest.approx(2.0 * (0.5 + 0.4))
    assert done.at == pytest.approx(first.at + 0.5 * 1.0)
    assert done.cached_tokens == 600


def test_luck_in_an_engine_is_more_iterations_or_fewer() -> None:
    engine = {"model": "batching", "iteration_base_s": 0.01, "iteration_per_seq_s": 0.0}

    def took_s(luck: tuple[float, float] | None) -> float:
        provider = build_provider(engine, seed=1)
        assert provider.submit(Job(1, 100, luck=luck), now=0.0) is None
        return provider.advance(now=1e6)[-1].at

    assert took_s((1.0, 1.5)) == pytest.approx(1.5 * took_s(None), abs=0.011)
    assert took_s((9.0, 1.0)) == pytest.approx(took_s(None))
