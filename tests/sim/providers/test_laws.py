"""Laws of every model: whatever comes, goes or is cancelled, nothing is lost, doubled or made."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.sim.providers.base import Happening, Job, Provider
from penstock.sim.providers.registry import build_provider

Table = dict[str, Any]


@dataclass
class Told:
    """What an owner has seen of a provider."""

    provider: Provider
    waiting: dict[int, Job] = field(default_factory=dict)
    ended: Counter[int] = field(default_factory=Counter)
    started: Counter[int] = field(default_factory=Counter)
    emitted: dict[int, int] = field(default_factory=dict)
    most_active: int = 0

    def go_on(self, until: float) -> None:
        """Let everything happen up to then, and look at each step."""
        last = 0.0
        while (at := self.provider.next_event_at()) <= until:
            assert at >= last
            last = at
            for event in self.provider.advance(now=at):
                assert event.job_id in self.waiting, "told of a job that is none of ours"
                job = self.waiting[event.job_id]
                if event.what is Happening.FIRST_TOKEN:
                    self.started[job.id] += 1
                elif event.what is Happening.FINISHED:
                    assert self.started[job.id] == 1
                    self.ended[job.id] += 1
                    del self.waiting[job.id]
            self.look(at)

    def look(self, now: float) -> None:
        """Note how many are served, and that no reply ever shrinks or outgrows its length."""
        self.most_active = max(self.most_active, self.provider.load().active)
        for job in self.waiting.values():
            done = self.provider.tokens_done(job.id, now=now)
            assert self.emitted.get(job.id, 0) <= done <= job.output_tokens
            self.emitted[job.id] = done


@st.composite
def tables(draw: st.DrawFn) -> tuple[Table, int]:
    """Return a provider and the most that it may serve at once."""
    places = draw(st.integers(1, 6))
    model = draw(
        st.sampled_from(["slots", "serial", "batching", "pool", "autoscale", "cloud", "linear"])
    )
    table: Table = {"model": model, "cached_share": draw(st.sampled_from([0.0, 0.5]))}
    most = places
    if model == "batching":
        table |= {"max_seqs": places, "kv_tokens": draw(st.sampled_from([300, 3000]))}
        table |= {"iteration_base_s": 0.05, "chunked": draw(st.booleans())}
        table["prefill_tokens_per_s"] = 2000.0
    else:
        noise = {"jitter": 0.4} if model != "cloud" else {"sigma": 0.4}
        table |= {"stragglers": {"share": 0.2, "factor": 5.0}, **noise}
        table["prefill_tokens_per_s"] = draw(st.sampled_from([500.0, 1e6]))
    if model == "slots":
        table["slots"] = places
    elif model == "serial":
        most = 1
    elif model == "pool":
        routing = draw(st.sampled_from(["random", "round_robin", "least"]))
        table |= {"replicas": places, "slots": 2, "routing": routing}
        most = 2 * places
    elif model == "autoscale":
        table |= {"most": places, "slots": 2, "step_after_s": 0.5, "cold_start_s": 1.0}
        table["idle_s"] = 2.0
        most = 2 * places
    elif model == "cloud":
        outside = draw(st.sampled_from(["walk", "daily", "sudden"]))
        table |= {"capacity": places, "outside": outside, "outside_s": 3.0}
    elif model == "linear":
        most = 1_000_000
    if draw(st.booleans()):
        table["spells"] = {"factor": 0.2, "every_s": 5.0, "for_s": 1.0}
    return table, most


stories = st.lists(
    st.tuples(
        st.floats(0.0, 2.0),  # seconds later
        st.integers(0, 150),  # tokens
        st.integers(0, 250),  # prompt
        st.sampled_from([None, None, None, 0, 1, 2]),  # cancels the so-manieth that waits
    ),
    min_size=1,
    max_size=25,
)


@settings(max_examples=300)
@given(world=tables(), story=stories)
def test_each_is_served_once_within_the_places_and_token_by_token(
    world: tuple[Table, int], story: list[tuple[float, int, int, int | None]]
) -> None:
    table, most = world
    told = Told(build_provider(table, seed=5))
    now, cancelled = 0.0, set[int]()
    for number, (gap, tokens, prompt, victim) in enumerate(story):
        now += gap
        told.go_on(now)
        job = Job(number, tokens, prompt)
        assert told.provider.submit(job, now=now) is None
        told.waiting[number] = job
        told.look(now)
        if victim is not None and victim < len(told.waiting):
            id_ = list(told.waiting)[victim]
            told.provider.cancel(id_, now=now)
            del told.waiting[id_]
            cancelled.add(id_)
    told.go_on(1e9)

    assert told.waiting == {}
    assert set(told.ended) == set(range(len(story))) - cancelled
    assert set(told.ended.values()) <= {1}
    assert told.most_active <= most
    assert (told.provider.load().active, told.provider.load().queued) == (0, 0)


@settings(max_examples=100)
@given(world=tables(), story=stories)
def test_a_provider_never_idles_while_somebody_waits_inside(
    world: tuple[Table, int], story: list[tuple[float, int, int, int | None]]
) -> None:
    told = Told(build_provider(world[0], seed=5))
    now = 0.0
    for number, (gap, tokens, prompt, _) in enumerate(story):
        now += gap
        told.go_on(now)
        told.waiting[number] = Job(number, tokens, prompt)
        told.provider.submit(told.waiting[number], now=now)
        load = told.provider.load()

        assert load.active > 0 or load.queued == 0
        assert told.provider.next_event_at() < 1e9
