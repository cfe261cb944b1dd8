"""Outages drawn at random: what the provider is, what befalls it, and who calls meanwhile."""

import math
from dataclasses import dataclass
from random import Random

from benchmarks.troubles.callers import Calls, Ends
from benchmarks.troubles.provider import Answer, Fault, during, refusal
from benchmarks.troubles.table import Trouble

GOOD_SHARE = 0.98
"""Of the calls that direct calls bring to a good end in time, so many at least."""
FIRST_S = 2.0
"""From when the provider is well and somebody calls, a call's own time not counted."""
SMALL_S, CROWD_S, CROWD = 5.0, 30.0, 50
"""From the end of an outage until goodput is back: for few callers, and for so many."""
LOOKED_S = 10.0
"""For so long goodput is counted."""
GOODPUT_SHARE = 0.95
KINDS = ("429", "503", "529", "429 waits", "503 waits", "529 waits", "500", "reset", "silent")
LONGEST_WAIT_S = 60.0
MOST_SLOTS = 24
"""Of more places the window takes longer to learn than the time before an outage is."""
MOST_PER_S = 20.0
"""Of more calls a second a world costs minutes."""


@dataclass(frozen=True, slots=True)
class Outage:
    """One drawn world: so many callers, evenly spread or in step, and what befalls them."""

    trouble: Trouble
    callers: int
    kind: str

    @property
    def ready_at(self) -> float:
        """Return when a call comes first after the end."""
        calls, until = self.trouble.calls, self.trouble.until
        assert until is not None
        rounds = math.ceil(until / (calls.every_s * calls.together))
        return rounds * calls.every_s * calls.together

    def recovered(self, ends: Ends) -> tuple[bool, bool]:
        """Return whether the first call succeeded soon after the end, and soon as many as come."""
        until, calls = self.trouble.until, self.trouble.calls
        assert until is not None
        first_s = min((at for at in ends.at.values() if at > until), default=math.inf)
        first = first_s <= self.ready_at + FIRST_S + 2.0 * self.trouble.service_s
        start = until + (CROWD_S if self.callers >= CROWD else SMALL_S)
        came = [n for n in range(calls.count) if start <= calls.comes_at(n) < start + LOOKED_S]
        ended = sum(start <= at < start + LOOKED_S for at in ends.at.values())
        return first, ended + calls.together >= GOODPUT_SHARE * len(came)


def outage(seed: int) -> Outage:
    """Draw a world."""
    rng = Random(f"outage/{seed}")
    callers = round(_between(rng, 3.0, 300.0))
    slots = min(MOST_SLOTS, max(1, round(callers / rng.uniform(1.0, 10.0))))
    load = rng.uniform(0.2, 0.9)
    service_s = max(_between(rng, 0.3, 4.0), slots * load / MOST_PER_S)
    every_s = service_s / slots / load
    in_time_s = max(_between(rng, 5.0, 60.0), 2.0 * service_s * callers / slots)
    start, length_s = rng.uniform(0.0, 20.0), _between(rng, 1.0, 120.0)
    end = start + length_s
    kind = rng.choice(KINDS)
    share = 1.0 if rng.random() < 0.5 else rng.uniform(0.05, 1.0)
    answer, said = _answer(rng, kind, end)
    together = callers if rng.random() < 0.3 else 1
    told = rng.random() < 0.5
    calls = Calls(
        math.ceil((end + CROWD_S + LOOKED_S) / every_s),
        every_s,
        together,
        in_time_s,
        told=told,
        leaves=not told,
    )
    name = (
        f"{seed}: {callers} callers{' in step' if together > 1 else ''}, {1.0 / every_s:.2g} a "
        f"second, {in_time_s:.0f} s{' told' if calls.told else ''}; {slots} x {service_s:.1f} s; "
        f"{said}, {share:.0%}, from {start:.0f} s for {length_s:.0f} s"
    )
    fault = during(start, end, answer, share=share)
    trouble = Trouble(name, fault, end, calls, slots=slots, service_s=service_s)
    return Outage(trouble, callers, kind)


def _answer(rng: Random, kind: str, end: float) -> tuple[Answer | Fault, str]:
    """Return what those get whom the outage befalls, in code and in words."""
    if kind == "reset":
        return Answer(ends="reset", after_s=0.05), kind
    if kind == "silent":
        after_s = _between(rng, 2.0, 30.0)
        return Answer(ends="silent", after_s=after_s), f"silent for {after_s:.0f} s"
    status = int(kind[:3])
    if kind == str(status):
        return refusal(status), kind
    if rng.random() < 0.5:
        return lambda it: refusal(status, wait=math.ceil(end - it.now)), f"{kind} for its end"
    wait_s = round(rng.uniform(0.0, LONGEST_WAIT_S))
    return refusal(status, wait=wait_s), f"{kind} {wait_s} s"


def _between(rng: Random, low: float, high: float) -> float:
    """Draw a number whose logarithm is uniform."""
    return math.exp(rng.uniform(math.log(low), math.log(high)))
