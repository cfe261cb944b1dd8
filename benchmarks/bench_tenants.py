"""What a tenant's five calls see beside another tenant's thousand, in the simulator.

    python benchmarks/bench_tenants.py

A claim about a model: fixed slots and a fixed window as large, exact lengths, virtual time. 1,000
calls of one tenant and 5 short ones of another arrive at 0 s, the 5 `last` or `among` the others.
Their P95 is set against that of the same 5 alone before half the slots, and against the least
that any rule reaches which leaves no slot empty: a call in flight is never taken back, so at best
the few go `ahead` of all that wait. The flood's calls are `short`, or `mixed`, which hold a slot
for longer.
"""

from dataclasses import replace
from itertools import product
from random import Random
from statistics import quantiles

from penstock.core.model import TrafficClass
from penstock.core.settings import PolicySpec, Settings, Stack, UpstreamSettings
from penstock.policies.registry import build_scheduler
from penstock.sim.engine import Engine
from penstock.sim.scenario import read_scenario
from penstock.sim.workload import Load, Workload

SLOTS, FLOOD, FEW = 8, 1_000, 5
FLOODS = {
    "short": {"short": 1.0, "medium": 0.0, "long": 0.0, "xlong": 0.0},
    "mixed": {"short": 0.25, "medium": 0.25, "long": 0.25, "xlong": 0.25},
}


def scenario(slots: int, count: int, mix: dict[str, float]) -> dict[str, object]:
    """Return the tables of a scenario."""
    return {
        "provider": {"model": "slots", "slots": slots},
        "workload": {"rate_per_s": 1.0, "requests": count, "mix": mix, "information": "oracle"},
    }


def calls(count: int, mix: dict[str, float], tenant: str, seed: int) -> list[Load]:
    """Return calls of one class and tenant."""
    plan = read_scenario(scenario(SLOTS, count, mix))
    loads = plan.workload.build(seed, plan.classes).loads
    return [
        replace(
            load, request=replace(load.request, traffic_class="all", tenant=tenant, arrived_at=0.0)
        )
        for load in loads
    ]


def latencies_s(
    loads: list[Load], slots: int, seed: int, *, turns: bool = True, ahead: bool = False
) -> list[float]:
    """Return the latencies of the few, where all of these arrive at 0 s in this order."""
    numbered = []
    for n, each in enumerate(loads, 1):
        due = 1.0 if ahead and each.request.tenant == "few" else 1e6
        numbered.append(replace(each, request=replace(each.request, id=n, deadline=due)))
    fifo, order = PolicySpec("fifo"), PolicySpec("edf" if ahead else "fifo")
    stack = Stack(fifo, order, PolicySpec("always_admit"), PolicySpec("fixed", {"window": slots}))
    classes = (TrafficClass("all"),)
    settings = Settings(classes, (UpstreamSettings("default"),), stack, tenant_turns=turns)
    providers = read_scenario(scenario(slots, 1, FLOODS["short"])).build_providers(seed)
    run = Engine(build_scheduler(settings), providers).run(Workload(tuple(numbered), classes))
    served = zip(numbered, run.records, strict=True)  # the engine keeps the order
    return [record.latency_s for load, record in served if load.request.tenant == "few"]


def row(flood: str, order: str, seeds: range) -> list[float]:
    """Return the few's P95 in seconds alone, beside the flood, ahead of it, and without turns."""
    found: list[list[float]] = [[], [], [], []]
    for seed in seeds:
        few = calls(FEW, FLOODS["short"], "few", seed)
        both = calls(FLOOD, FLOODS[flood], "many", seed + 10**6) + few
        if order == "among":
            Random(seed).shuffle(both)
        found[0] += latencies_s(few, SLOTS // 2, seed)
        found[1] += latencies_s(both, SLOTS, seed)
        found[2] += latencies_s(both, SLOTS, seed, turns=False, ahead=True)
        found[3] += latencies_s(both, SLOTS, seed, turns=False)
    return [quantiles(each, n=20)[-1] for each in found]


if __name__ == "__main__":
    print("flood   the few   P95 alone   both  ratio   ahead  ratio  no turns")
    for case in product(FLOODS, ("last", "among")):
        own, shared, least, late = row(*case, range(40))
        print(
            f"{case[0]:8}{case[1]:8}{own:10.2f}s{shared:6.2f}s{shared / own:7.2f}"
            f"{least:7.2f}s{least / own:7.2f}{late:9.1f}s",
            flush=True,
        )
