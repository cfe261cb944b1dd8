"""One long story, told the same way every time; run as a program, it prints the decision log."""

import random
import sys

from penstock.core.model import Request, TokenEstimate, TrafficClass
from penstock.core.settings import PolicySpec, Settings, Stack, UpstreamSettings
from tests.core.story import decisions
from tests.properties.world import Caller, Fate, World, finish

CLASSES = (
    TrafficClass("interactive", weight=4.0),
    TrafficClass("batch", weight=1.0),
    TrafficClass("nightly", weight=0.7),
)
STEADY = Stack(
    PolicySpec("drr", {"quantum_tokens": 256.0}),
    PolicySpec("feasible_set", {"price": 1.0, "patience": 8}),
    PolicySpec("always_admit"),
)
"""A stack in which no tuned number has a part: its log changes only with an algorithm."""


def settings(stack: Stack) -> Settings:
    """Return two upstreams and three classes."""
    windows = PolicySpec("fixed", {"window": 3.0})
    return Settings(
        CLASSES,
        (
            UpstreamSettings("main", (), windows),
            UpstreamSettings("spare", ("m",), windows, base_s=0.4, s_per_token=0.006),
        ),
        stack,
        retry_share=1.0,
        sticky=True,
    )


def world(stack: Stack, *, seed: int, requests: int) -> World:
    """Return a workload with faults, drawn from the seed."""
    chance = random.Random(seed)
    callers, now = [], 0.0
    for id_ in range(requests):
        now += chance.expovariate(6.0)
        p50 = chance.choice((20.0, 40.0, 150.0, 600.0, 2000.0))
        request = Request(
            id_,
            chance.choice([c.name for c in CLASSES]),
            now,
            TokenEstimate(p50, p50 * 2.0, "test"),
            deadline=now + chance.choice((2.0, 20.0, 200.0)),
            expires_at=now + chance.choice((5.0, 500.0)),
            model=chance.choice(("m", "n")),
            session=chance.choice(("", "s1", "s2", "s3")),
        )
        callers.append(Caller(request, now + chance.choice((1.0, 900.0, 900.0, 900.0))))
    kinds = ("reply",) * 12 + ("rate", "overload", "slow_first_token", "broken", "lost")
    fates = tuple(
        Fate(
            chance.choice(kinds),
            round(chance.uniform(0.1, 6.0), 2),
            chance.choice((30, 100, 700, None)),
            chance.choice((None, 1.0)),
            chance.random() < 0.5,
            round(chance.random(), 3),
        )
        for _ in range(requests)
    )
    return World(settings(stack), tuple(callers), fates)


def steady_lines() -> list[str]:
    """Return the log of the steady stack, without severity: its formula is tuned elsewhere."""
    lines = []
    for now, _, actions in finish(world(STEADY, seed=1, requests=120)).log:
        for action in decisions(actions):
            why = action.why
            where = getattr(action, "upstream", getattr(action, "reason", ""))
            waits = " ".join(f"{cause}={s:.6f}" for cause, s in sorted(why.waits.items()))
            lines.append(
                f"{now:.6f} {type(action).__name__} {action.request.id} {where} "
                f"deficit={why.deficit_tokens:.6f} in_flight={why.in_flight} "
                f"backlog={why.backlog} attempts={why.attempts} {waits}".rstrip()
            )
    return lines


def full_lines() -> list[str]:
    """Return the whole log of penstock's own stack and of one with everything else in it."""
    other = Stack(
        PolicySpec("quota_tiered"),
        PolicySpec("edf"),
        PolicySpec("uniform_harsh"),
        PolicySpec("fixed"),
    )
    return [
        line
        for stack in (Stack(), other, STEADY)
        for line in finish(world(stack, seed=2, requests=250)).lines()
    ]


if __name__ == "__main__":
    sys.stdout.write("\n".join(full_lines()) + "\n")
