"""Runs a history's traffic again: the simulator's engine, the log's requests, a fitted provider."""

import math
from collections.abc import Mapping
from typing import Any

from penstock.core.model import bucket_of
from penstock.core.settings import Settings
from penstock.policies.registry import build_scheduler
from penstock.sim.engine import Engine, Habits, Run, Watch
from penstock.sim.providers.registry import build_provider
from penstock.sim.simulate import without_cycles
from penstock.sim.workload import Load, Workload
from penstock.twin.history import History

_SEED_STEP = 1_000_003
"""Each upstream draws on its own, as in a scenario."""

Luck = Mapping[int, tuple[float, float]]
"""By place of the call, by what factors it took longer than the model says, where that is known:
up to its first token, and after it."""

Providers = Mapping[str, Mapping[str, Any]]
"""Providers' tables, as a scenario has them, by upstream."""


def workload_of(history: History, luck: Luck | None = None) -> Workload:
    """Return the traffic as it came: every request as the scheduler saw it, and its real tokens.

    Args:
        history: whose requests come.
        luck: what is known of the calls' luck; the rest is drawn.

    """
    known = luck or {}
    whole = {each.call: each for each in history.attempts if each.end == "completed"}
    refusals: dict[int, list[tuple[float, float]]] = {}
    for each in history.attempts:
        if each.refused:
            heard = (each.ended_at - each.sent_at, each.jitter)
            refusals.setdefault(each.call, []).append(heard)
    loads = tuple(
        Load(
            call.request,
            call.output_tokens,
            bucket_of(call.output_tokens),
            call.request.deadline,
            known.get(place),
            whole[place].cached_tokens if place in whole else None,
            not math.isnan(whole[place].first_at) if place in whole else None,
            call.left_at,
            tuple(refusals.get(place, ())),
        )
        for place, call in enumerate(history.calls)
    )
    return Workload(loads, history.settings.classes)


def rerun(
    history: History,
    providers: Providers,
    *,
    settings: Settings | None = None,
    seed: int = 0,
    workload: Workload | None = None,
    watch: Watch | None = None,
    since: float = 0.0,
) -> Run:
    """Return what becomes of the history's traffic at these providers.

    Args:
        history: whose requests come.
        providers: a table for each upstream of the settings that the traffic may reach.
        settings: the scheduler's; the log's own if left out.
        seed: of what providers draw.
        workload: what comes, in place of the history's own.
        since: until then everything is as it really was.
        watch: shown every event and what the scheduler answered.

    Raises:
        ProtocolError: a request never ends.

    """
    settings = settings or history.settings
    streamed = history.streamed()
    servers = {
        name: build_provider(table, seed=seed + _SEED_STEP * number, first_tokens=streamed > 0)
        for number, (name, table) in enumerate(providers.items())
    }
    scheduler = build_scheduler(settings)
    habits = Habits(stream=streamed, refusal_s=history.refusal_s())
    engine = Engine(scheduler, servers, habits=habits, seed=seed, watch=watch)
    with without_cycles():
        run = engine.run(workload or workload_of(history), past=history.past(since))
    for fault in scheduler.faults:
        raise fault
    return run
