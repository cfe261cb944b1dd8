"""Plays an engine beside what really happened: how far each reply had come when it really ended.

For whom an engine's cache has room hangs on how long all replies are by then; who is put off comes
back later, and is computed again: no formula says when a reply should have ended. So the
simulator's engine is sent what was sent, and what really ended is taken out of it, whatever it had
done by then: where it was too slow or too fast for one call, the calls that come later do not pay.
"""

import math

import numpy as np

from penstock.sim.providers.base import Job
from penstock.sim.providers.batching import BatchingParams, BatchingServer
from penstock.sim.providers.changes import Change
from penstock.twin.capacity import Path
from penstock.twin.flights import AttemptTimes
from penstock.twin.history import Floats

_NEVER_ENDS_TOKENS = 1 << 40
_ENDED, _SENT = 0, 1


def beside(
    flights: AttemptTimes, params: BatchingParams, places: int | Path
) -> tuple[Floats, Floats]:
    """Return when each reply's first token is there, and how many are when it really ended.

    Nan for what has not begun by then, and for what has not ended.

    Args:
        flights: what was sent, and when it ended.
        params: the engine.
        places: its `max_seqs`, over time if it moves.

    """
    server = BatchingServer(params)
    if isinstance(places, Path):
        first, *later = (params.model_copy(update={"max_seqs": n}) for n in places.places)
        moves = zip(places.since[1:], later, strict=True)
        server = BatchingServer(first, [Change(at, each) for at, each in moves])
    sent, ended = flights.sent.tolist(), flights.ended.tolist()
    context, read = flights.context.tolist(), flights.prompt.tolist()
    events = [(at, _SENT, n) for n, at in enumerate(sent)]
    events += [(at, _ENDED, n) for n, at in enumerate(ended) if at < math.inf]
    begun, done = np.full((2, len(sent)), math.nan)
    for now, what, n in sorted(events):
        for event in server.advance(now=now):
            begun[event.job_id] = event.at  # its first token: none ever ends
        if what == _ENDED:
            done[n] = server.tokens_reached(n, now=now)
            server.cancel(n, now=now)
        else:
            cached = int(context[n] - read[n])
            job = Job(n, _NEVER_ENDS_TOKENS, int(context[n]), (1.0, 1.0), cached)
            server.submit(job, now=now)
    return begun, done
