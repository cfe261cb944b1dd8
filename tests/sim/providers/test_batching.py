"""`batching` against an engine that plays every iteration, one by one, as PAPER.md says."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.sim.providers.base import Job
from penstock.sim.providers.batching import CHUNK_TOKENS
from penstock.sim.providers.registry import build_provider
from tests.sim.providers.story import Arrival, drain, ends, firsts, run

ENGINE = {
    "model": "batching",
    "max_seqs": 4,
    "kv_tokens": 100_000,
    "iteration_base_s": 0.5,
    "iteration_per_seq_s": 0.25,
    "prefill_tokens_per_s": 1000.0,
}


def engine(**params: Any) -> Any:
    return build_provider({**ENGINE, **params}, seed=0)


def test_alone_a_sequence_gets_a_token_an_iteration_the_first_by_its_prompts() -> None:
    # The prompt's iteration takes 0.75 s and 0.1 s for 100 tokens; then nine of 0.75 s.
    seen = run(engine(), [(1.0, 1, 10, 100)])

    assert seen == [(1.85, 1, "first_token"), (8.6, 1, "finished")]


def test_together_each_is_slower_but_more_tokens_come_in_a_second() -> None:
    alone = ends(run(engine(), [(0.0, 1, 100)]))[1]
    four = ends(run(engine(), [(0.0, n, 100) for n in range(4)]))

    assert alone == 75.0
    assert four == dict.fromkeys(range(4), 150.0)


def test_who_comes_in_mid_iteration_joins_the_next_one() -> None:
    seen = run(engine(), [(0.0, 1, 3), (0.1, 2, 1)])

    # 1: 0.75, then two iterations with 2 among them for one of them: 1.0 and 0.75.
    assert firsts(seen) == {1: 0.75, 2: 1.75}
    assert ends(seen) == {1: 2.5, 2: 1.75}


def test_the_fifth_of_four_waits_for_a_sequence_to_end() -> None:
    seen = run(engine(), [(0.0, n, 2 if n == 3 else 10) for n in range(1, 6)])

    assert ends(seen)[3] == 3.0
    assert firsts(seen)[5] == 4.5


def test_a_chunked_prompt_slows_the_others_and_an_unchunked_one_stops_them() -> None:
    arrivals: list[Arrival] = [(0.0, 1, 5), (0.1, 2, 1, 1000)]

    chunked = ends(run(engine(), arrivals))
    stalled = ends(run(engine(chunked=False), arrivals))

    # Two iterations of 1 s with 512 and 488 tokens of the prompt, then two of 0.75 s.
    assert chunked == {2: 0.75 + 2.0 + 1.0, 1: 0.75 + 3.0 + 1.5}
    # One iteration of 0.75 s and 1 s is the prompt's alone; 1 then does its four.
    assert stalled == {2: 0.75 + 1.75, 1: 0.75 + 1.75 + 3.0}


def test_what_the_prompt_cache_holds_is_not_read_again() -> None:
    provider = engine(cached_share=1.0)
    provider.submit(Job(1, 1, 1000), now=0.0)

    (first, end) = provider.advance(now=10.0)

    assert first.at == pytest.approx(0.75 + 0.05)
    assert (first.cached_tokens, end.cached_tokens) == (950, 950)


def test_a_full_cache_puts_out_the_last_that_came_and_computes_it_again() -> None:
    # 10 + 10 tokens of prompts in 30: the cache is full after 5 iterations of both.
    seen = run(engine(kv_tokens=30), [(0.0, 1, 12, 10), (0.0, 2, 12, 10)])

    both_s = 1.0 + 0.02 + 5 * 1.0
    assert ends(seen)[1] == pytest.approx(both_s + 6 * 0.75)
    # 2 comes back when 1 has gone, has 16 tokens computed again, and then its last five.
    assert ends(seen)[2] == pytest.approx(ends(seen)[1] + 0.75 + 0.016 + 5 * 0.75)
    assert firsts(seen) == {1: pytest.approx(1.02), 2: pytest.approx(1.02)}


def test_a_sequence_larger_than_the_cache_runs_alone() -> None:
    seen = run(engine(kv_tokens=50), [(0.0, 1, 5), (0.0, 2, 10, 100), (0.0, 3, 5)])

    assert sorted(ends(seen), key=ends(seen).__getitem__) == [1, 2, 3]


def test_a_cancelled_sequence_is_gone_when_its_iteration_ends() -> None:
    provider = engine(max_seqs=1)
    provider.submit(Job(1, 1000), now=0.0)
    provider.submit(Job(2, 1), now=0.0)
    drain(provider, until=10.0)

    provider.cancel(1, now=10.0)

    assert ends(drain(provider, until=20.0)) == {2: 10.5 + 0.75}
    assert (provider.load().active, provider.load().queued) == (0, 0)


def test_a_job_may_come_back_while_its_first_attempt_is_leaving() -> None:
    provider = engine()
    provider.submit(Job(1, 1000), now=0.0)
    drain(provider, until=10.0)

    provider.cancel(1, now=10.0)
    provider.submit(Job(1, 1), now=10.0)

    assert ends(drain(provider, until=20.0)) == {1: 10.5 + 0.75}


def test_the_iteration_under_way_counts_as_far_as_it_is() -> None:
    provider = engine()
    provider.submit(Job(1, 10), now=0.0)

    seen = []
    for now in (0.7, 0.75, 0.9, 1.5):
        provider.advance(now=now)
        seen.append(provider.tokens_reached(1, now=now))

    assert seen == pytest.approx([0.0, 1.0, 1.2, 2.0])
    assert provider.tokens_reached(2, now=1.5) == 0.0


def test_tokens_appear_one_by_one_with_the_iterations() -> None:
    provider = engine()
    provider.submit(Job(1, 10), now=0.0)

    seen = []
    for now in (0.7, 0.75, 1.4, 1.5, 6.7):
        provider.advance(now=now)
        seen.append(provider.tokens_done(1, now=now))

    assert seen == [0, 1, 1, 2, 8]


def test_an_engine_that_changes_does_so_between_two_iterations() -> None:
    provider = engine(changes=[{"at_s": 1.0, "iteration_base_s": 1.0}])

    assert ends(run(provider, [(0.0, 1, 4)])) == {1: 2 * 0.75 + 2 * 1.25}


@dataclass
class Row:
    id: int
    output: int
    prompt: int
    emitted: int = 0
    unread: int = 0
    decoding: bool = False

    @property
    def held(self) -> int:
        return self.prompt + self.emitted - self.decoding


def every_iteration(
    arrivals: Sequence[tuple[float, int, int, int]], table: dict[str, Any]
) -> tuple[dict[int, float], dict[int, float], list[tuple[int, int]]]:
    """Play each iteration; return first tokens, ends and each one's (sequences, tokens held)."""
    coming = list(arrivals)
    waiting: list[Row] = []
    running: list[Row] = []
    first: dict[int, float] = {}
    ended: dict[int, float] = {}
    loads: list[tuple[int, int]] = []
    now, base, each = 0.0, table["iteration_base_s"], table["iteration_per_seq_s"]
    while coming or waiting or running:
        if not waiting and not running:
            now = max(now, coming[0][0])
        while coming and coming[0][0] <= now + 1e-9:
            _, id_, output, prompt = coming.pop(0)
            waiting.append(Row(id_, output, prompt))
        while len(running) > 1 and (
            sum(s.held for s in running) + sum(s.decoding for s in running) > table["kv_tokens"]
        ):
            out = running.pop()
            out.decoding = False
            waiting.insert(0, out)
        while waiting and len(running) < table["max_seqs"]:
            head = waiting[0]
            needs = head.held + len(running) + 1
            if running and sum(s.held for s in running) + needs > table["kv_tokens"]:
                break
            head.unread = head.held
            running.append(waiting.pop(0))
        loads.append((len(running), sum(s.held for s in running)))
        reading = [s for s in running if not s.decoding]
        decoding = [s for s in running if s.decoding]
        counted = running
        budget = CHUNK_TOKENS if table["chunked"] else sum(s.unread for s in reading)
        if reading and not table["chunked"]:
            decoding, counted = [], reading
        chunk = min(budget, sum(s.unread for s in reading))
        now += base + each * len(counted) + chunk / table["prefill_tokens_per_s"]
        for s in decoding:
            s.emitted += 1
        for s in reading:
            read = min(chunk, s.unread)
            chunk -= read
            s.unread -= read
            if s.unread:
                break
            s.decoding = True
            s.emitted += 1
            first.setdefault(s.id, now)
        for s in [s for s in running if s.decoding and s.emitted >= s.output]:
            running.remove(s)
            ended[s.id] = now
    return first, ended, loads


@st.composite
def worlds(draw: st.DrawFn) -> tuple[list[tuple[float, int, int, int]], dict[str, Any]]:
    at, arrivals = 0.0, []
    sizes = st.tuples(st.integers(0, 40), st.integers(0, 60), st.integers(1, 60))
    for number, (gap, output, prompt) in enumerate(draw(st.lists(sizes, min_size=1, max_size=15))):
        # An odd fraction: never exactly an iteration's end, where the sums' rounding would decide.
        at += gap * 0.1234567891
        arrivals.append((at, number, output, prompt * draw(st.sampled_from([1, 40]))))
    table = {
        "max_seqs": draw(st.integers(1, 6)),
        "kv_tokens": draw(st.sampled_from([80, 200, 3_000, 100_000])),
        "iteration_base_s": 0.1,
        "iteration_per_seq_s": draw(st.sampled_from([0.0, 0.03])),
        "prefill_tokens_per_s": 997.0,
        "chunked": draw(st.booleans()),
    }
    return arrivals, table


@settings(max_examples=200)
@given(worlds())
def test_stretches_of_iterations_agree_with_playing_each(
    world: tuple[list[tuple[float, int, int, int]], dict[str, Any]],
) -> None:
    arrivals, table = world
    first, ended, loads = every_iteration(arrivals, table)

    seen = run(build_provider({"model": "batching", **table}, seed=0), arrivals)

    assert firsts(seen) == pytest.approx(first, abs=1e-5)
    assert ends(seen) == pytest.approx(ended, abs=1e-5)
    assert max(running for running, _ in loads) <= table["max_seqs"]
    assert all(held <= table["kv_tokens"] or running == 1 for running, held in loads)


def test_twenty_thousand_iterations_are_a_handful_of_events() -> None:
    provider = engine()
    for number in range(4):
        provider.submit(Job(number, 20_000), now=0.0)

    steps = 0
    while provider.next_event_at() < 1e9:
        provider.advance(now=provider.next_event_at())
        steps += 1

    assert steps <= 4
