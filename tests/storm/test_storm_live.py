"""The storm over real sockets: two short ones at a time. python -m benchmarks.storm plays
the full minute, in every dialect of refusal."""

import asyncio
from dataclasses import replace

import pytest

from benchmarks.storm.play import Played, Storm, play_storm

# How much of the goodput is back after 30 s, and how many calls are there while a slow machine
# sends, depend on the machine: test_storm.py has both in virtual time, the benchmark in real time.
BRIEF = Storm(calm_s=4.0, storm_s=4.0, recovery_s=3.0, measured_s=2.0)


async def _play_together(*storms: Storm) -> list[Played]:
    return list(await asyncio.gather(*(play_storm(storm) for storm in storms)))


@pytest.mark.slow
def test_nobody_is_lost_nothing_is_sent_twice_and_goodput_comes_back() -> None:
    overloaded = replace(BRIEF, status=529)
    limited = replace(BRIEF, status=429, retry_after_s=2.0)

    for played in asyncio.run(_play_together(overloaded, limited)):
        # Every call has a whole reply, unless the provider broke it off in the middle.
        assert not played.answers
        assert len(played.streams) + played.broken == len(played.asked_at)
        assert played.broken > 0
        # What had content was sent once: the provider counts as many whole replies as the callers,
        # and all else that it was sent it refused, or broke off before there was any content.
        assert played.stats["finished"] == len(played.streams)
        unheard = played.stats["faults"] - played.broken
        assert unheard >= 0
        assert played.attempts == len(played.asked_at) + played.refused + unheard
        assert played.refused > 0
        # Calls that the storm met are served after it.
        storm_end_s = played.storm.calm_s + played.storm.storm_s
        assert any(first > storm_end_s for first, _, _ in played.streams)
