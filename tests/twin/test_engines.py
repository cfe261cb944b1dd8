"""What a log says of engines and of pools: whose queue a call was in hangs on all the others."""

from dataclasses import replace

import pytest

from penstock.twin import engine_fit
from penstock.twin.flights import flights_of
from penstock.twin.kinds import fits
from penstock.twin.told import ENDLESS_CACHE_TOKENS, played
from tests.twin.histories import DIRECT, PROMPTS, SPEED, history

pytestmark = pytest.mark.slow


def test_an_engines_prompts_take_the_time_of_all() -> None:
    provider = {"model": "batching", "max_seqs": 8, "prefill_tokens_per_s": 4000.0}

    best = fits(flights_of(history(provider, **PROMPTS).attempts))[0]

    assert best.kind == "batching"
    assert best.table["max_seqs"] == 8
    assert best.table["prefill_tokens_per_s"] == pytest.approx(4000.0, rel=0.1)
    # An iteration of eight is what most were; its split into base and slope is told less well.
    full_s = best.table["iteration_base_s"] + 8 * best.table["iteration_per_seq_s"]
    assert full_s == pytest.approx(0.012 + 8 * 0.0006, rel=0.02)
    assert best.table["iteration_base_s"] == pytest.approx(0.012, rel=0.1)


@pytest.mark.parametrize("chunked", [True, False])
def test_an_engines_cache_is_found_where_it_is_full(chunked: bool) -> None:
    """Who is put off comes back and is computed again: no formula says when a reply ends."""
    provider = {"model": "batching", "max_seqs": 16, "kv_tokens": 6000, "chunked": chunked}
    past = history({**provider, "prefill_tokens_per_s": 8000.0}, rate_per_s=1.2, **PROMPTS)

    best = fits(flights_of(past.attempts))[0]

    assert best.kind == "batching"
    assert best.error < 0.02
    assert best.table["kv_tokens"] == pytest.approx(6000, rel=0.03)
    assert best.table["chunked"] is chunked
    # About five are in it: of an iteration of so many the parts are told less well.
    usual_s = best.table["iteration_base_s"] + 5 * best.table["iteration_per_seq_s"]
    assert usual_s == pytest.approx(0.012 + 5 * 0.0006, rel=0.02)
    assert best.bounded


def test_a_cache_is_not_searched_above_one_that_holds_everything(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    past = flights_of(history({"model": "batching", "max_seqs": 4, "kv_tokens": 10**9}).attempts)
    start = next(fit.told for fit in fits(past) if fit.kind == "batching")
    endless = replace(start.numbers, cache_tokens=ENDLESS_CACHE_TOKENS)
    monkeypatch.setattr(
        engine_fit, "screened", lambda told, flights: played(flights, endless, told.line)
    )

    found = engine_fit.fitted_engine(start, past)

    assert found.numbers.cache_tokens == ENDLESS_CACHE_TOKENS


def test_replicas_that_are_chosen_by_chance_are_no_engine_with_a_cache() -> None:
    """A play that all ends are forced upon must not take them for its own."""
    provider = {"model": "pool", "replicas": 11, "slots": 1, "prefill_tokens_per_s": 800.0, **SPEED}

    found = fits(flights_of(history(provider, **PROMPTS).attempts))

    assert {fit.told.numbers.cache_tokens for fit in found} == {None}


@pytest.mark.parametrize(("replicas", "routing"), [(15, "round_robin"), (18, "least")])
def test_any_number_of_replicas_is_found(replicas: int, routing: str) -> None:
    pool = {"model": "pool", "replicas": replicas, "slots": 1, "routing": routing, "jitter": 0.05}
    past = history({**pool, **SPEED}, rate_per_s=0.5 * replicas, requests=600, stack=DIRECT)

    best = fits(flights_of(past.attempts))[0]

    assert (best.kind, best.table["replicas"], best.table["slots"]) == ("pool", replicas, 1)
    assert best.table["routing"] == routing
