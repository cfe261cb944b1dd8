"""The storm over real sockets: two short ones at a time. benchmarks/bench_storm_live.py plays
the full minute, in every dialect of refusal."""

import asyncio
from dataclasses import replace

import pytest

from penstock.experiments.live.storm import Played, Storm, play_storm

BRIEF = Storm(calm_s=8.0, storm_s=8.0, recovery_s=8.0, measured_s=6.0)
RECOVERED = 0.8
"""0.95 is the promise after 30 s, and bench_storm_live's to hold. Six seconds, eight after the
end, are a coarser measure: 1.04 to 1.07 when nothing else ran, 0.56 beside four busy processes."""


async def _play_together(*storms: Storm) -> list[Played]:
    return list(await asyncio.gather(*(play_storm(storm) for storm in storms)))


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_nobody_is_lost_nothing_is_sent_twice_and_goodput_comes_back() -> None:
    overloaded = replace(BRIEF, status=529)
    limited = replace(BRIEF, status=429, retry_after_s=2.0)

    slow_to_recover = []
    for played in asyncio.run(_play_together(overloaded, limited)):
        # Every call has a whole reply, unless the provider broke it off in the middle.
        assert not played.answers
        assert len(played.streams) + played.broken == len(played.asked_at)
        assert played.broken > 0
        # What had a first byte was sent once: the provider counts as many replies, whole and
        # broken, as the callers do, and all else that it was sent it refused.
        assert played.stats["finished"] == len(played.streams)
        assert played.stats["faults"] == played.broken
        assert played.attempts == len(played.asked_at) + played.refused
        # The storm is not amplified.
        assert 0 < played.refused <= 1.1 * played.present
        if played.recovered < RECOVERED:
            slow_to_recover.append(played.storm)

    # One stall of a shared machine is no verdict, two are.
    if slow_to_recover:
        again = asyncio.run(_play_together(*slow_to_recover))
        assert min(played.recovered for played in again) >= RECOVERED
