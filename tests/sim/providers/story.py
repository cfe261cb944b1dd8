"""Drives one provider by a list of (time, what), as an owner with a clock would."""

from collections.abc import Sequence

from penstock.sim.providers.base import Happening, Job, Provider

Seen = tuple[float, int, str]
Arrival = tuple[float, int, int] | tuple[float, int, int, int]


def run(provider: Provider, arrivals: Sequence[Arrival], *, until: float = 1e9) -> list[Seen]:
    """Submit (time, job id, tokens[, prompt]) and return all that happens, as (time, id, what)."""
    seen: list[Seen] = []
    for at, job_id, tokens, *prompt in arrivals:
        seen += drain(provider, until=at)
        assert provider.submit(Job(job_id, tokens, sum(prompt)), now=at) is None
    return seen + drain(provider, until=until)


def drain(provider: Provider, *, until: float) -> list[Seen]:
    seen: list[Seen] = []
    while (at := provider.next_event_at()) <= until:
        events = provider.advance(now=at)
        seen += [(round(event.at, 6), event.job_id, str(event.what)) for event in events]
    return seen


def ends(seen: Sequence[Seen]) -> dict[int, float]:
    return {job_id: at for at, job_id, what in seen if what == Happening.FINISHED}


def firsts(seen: Sequence[Seen]) -> dict[int, float]:
    return {job_id: at for at, job_id, what in seen if what == Happening.FIRST_TOKEN}
