"""Whatever the provider does and whatever the stack: every request ends once, and nothing is left.

The engine itself refuses a run that leaves a request without an end.
"""

from collections import Counter
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock.core.events import Action, Dispatch, Event
from penstock.policies.registry import POLICIES, build_scheduler
from penstock.sim.engine import Engine
from penstock.sim.providers.registry import MODELS, build_provider
from penstock.sim.scenario import read_scenario, settings_of
from penstock.sim.simulate import run_one

Table = dict[str, Any]
SERVING = tuple(model for model in MODELS if model not in ("rate_limited", "faulty"))


@st.composite
def changing(draw: st.DrawFn, key: str) -> list[Table]:
    times = sorted(draw(st.sets(st.integers(1, 120), max_size=2)))
    return [{"at_s": at, key: draw(st.integers(1, 16))} for at in times]


@st.composite
def plain_providers(draw: st.DrawFn) -> Table:
    model = draw(st.sampled_from(SERVING))
    keys = {"slots": "slots", "serial": "", "batching": "max_seqs", "pool": "replicas"}
    key = {**keys, "autoscale": "slots"}.get(model, "capacity")
    table: Table = {"model": model, "cached_share": draw(st.sampled_from([0.0, 0.5]))}
    if draw(st.booleans()):
        table["prefill_tokens_per_s"] = draw(st.sampled_from([500.0, 10_000.0]))
    if model == "cloud":
        table["outside"] = draw(st.sampled_from(["none", "walk", "daily", "sudden"]))
    elif model != "batching" and draw(st.booleans()):
        table |= {"jitter": 0.5, "stragglers": {"share": 0.1, "factor": 10}}
    if draw(st.booleans()):
        table["spells"] = {"factor": 0.1, "every_s": 30, "for_s": 5}
    table["keeps_cancelled"] = draw(st.booleans())
    if key:
        table[key] = draw(st.integers(1, 16))
        table["changes"] = draw(changing(key))
    if model == "slots":
        table["beta"] = draw(st.sampled_from([0.0, 0.1]))
    return table


@st.composite
def windows(draw: st.DrawFn) -> Table:
    from_s = draw(st.integers(0, 60))
    kind = draw(st.sampled_from(["status", "slow_first_token", "stall", "reset"]))
    status = {"status": draw(st.sampled_from([400, 429, 500, 503, 529]))}
    return {
        "kind": kind,
        "from_s": from_s,
        "until_s": from_s + 20,
        "share": draw(st.sampled_from([0.3, 1.0])),
        **(status if kind == "status" else {}),
    }


@st.composite
def providers(draw: st.DrawFn) -> Table:
    table = draw(plain_providers())
    if draw(st.booleans()):
        limits = {"rpm": draw(st.integers(30, 600)), "burst_s": draw(st.sampled_from([5.0, 60.0]))}
        limits["silent"] = draw(st.booleans())
        table = {"model": "rate_limited", "inner": table, **limits}
    if draw(st.booleans()):
        troubles = draw(st.lists(windows(), min_size=1, max_size=2))
        table = {"model": "faulty", "inner": table, "windows": troubles}
    return table


@st.composite
def scenarios(draw: st.DrawFn) -> Table:
    shares = draw(st.lists(st.integers(0, 4), min_size=4, max_size=4).filter(any))
    buckets = ("short", "medium", "long", "xlong")
    stack = {
        layer: draw(st.sampled_from(sorted(kinds)))
        for layer, kinds in POLICIES.items()
        if draw(st.booleans())
    }
    return {
        "seeds": [draw(st.integers(0, 1000))],
        "provider": draw(providers()),
        "workload": {
            "requests": draw(st.integers(1, 80)),
            "rate_per_s": draw(st.sampled_from([0.5, 3.0, 12.0])),
            "mix": {b: n / sum(shares) for b, n in zip(buckets, shares, strict=True)},
            "information": draw(st.sampled_from(["none", "class", "coarse", "oracle"])),
            "noise": draw(st.sampled_from([0.0, 0.6])),
            "stream": draw(st.sampled_from([True, False, 0.5])),
            "prompt_tokens": draw(st.sampled_from([0, [10, 2000], {"median": 500, "sigma": 1}])),
        },
        "policies": {"drawn": stack},
    }


@settings(max_examples=100)
@given(scenarios())
def test_every_request_ends_once_and_nothing_is_left(document: Table) -> None:
    plan = read_scenario(document)
    (seed,) = plan.seeds
    work = plan.workload.build(seed, plan.classes)
    scheduler = build_scheduler(settings_of(plan.policies["drawn"], work.classes))
    provider = build_provider(plan.provider, seed=seed)
    dispatched: Counter[int] = Counter()

    def watch(_now: float, _event: Event, actions: list[Action]) -> None:
        dispatched.update(a.request.id for a in actions if isinstance(a, Dispatch))

    run = Engine(
        scheduler, {"default": provider}, habits=plan.workload.habits(), seed=seed, watch=watch
    ).run(work)

    assert len(run.records) == len(work.loads)
    assert dispatched.total() == run.attempts
    assert all(r.ended_at >= r.arrived_at for r in run.records)
    snapshot = scheduler.snapshot()
    assert sum(u.in_flight for u in snapshot.upstreams.values()) == 0
    assert sum(u.in_flight_tokens for u in snapshot.upstreams.values()) == 0
    assert sum(lane.waiting for lane in snapshot.lanes) + snapshot.deferred == 0
    assert provider.load().active + provider.load().queued == 0


@pytest.mark.parametrize("dialect", ["openai", "plain"])
@pytest.mark.parametrize("limit", ["tpm", "output_tpm"])
@pytest.mark.parametrize("burst_s", [0.2, 1.0, 5.0])
def test_replies_dearer_than_the_providers_bucket_end_the_run_all_the_same(
    dialect: str, limit: str, burst_s: float
) -> None:
    slots = {"model": "slots", "slots": 32}
    scenario = read_scenario(
        {
            "provider": {
                "model": "rate_limited",
                "inner": slots,
                "dialect": dialect,
                "burst_s": burst_s,
                limit: 3000.0,
            },
            "workload": {"rate_per_s": 1.0, "requests": 60},
        }
    )
    sent = Counter[tuple[float, int]]()

    def watch(now: float, _event: Event, actions: list[Action]) -> None:
        sent.update((now, act.request.id) for act in actions if isinstance(act, Dispatch))

    run_one(scenario, "default", 1, watch=watch)

    assert max(sent.values()) == 1
    assert sum(sent.values()) <= 2 * 60
