"""`slots`, `serial`, `shared` and `thrash`: what `sharing.py` serves, queued inside or not.

Here too: what one job asks of a provider, its prompt's prefill, what of it is cached, and its
variation. Every draw depends on the seed and the job's id alone, so that two policies meet the
same service times request by request.
"""

import math
from abc import abstractmethod

from penstock.schema.types import Table
from penstock.sim.calls import standard_normal, unit
from penstock.sim.params import count, not_negative, positive
from penstock.sim.providers.base import Job

_CACHED_STREAM, _JITTER_STREAM, _STRAGGLER_STREAM = 0x4341, 0x4C49, 0x5354
CACHED_PART = 0.95
"""Of a cached prompt: what is new is the question at its end (PAPER.md)."""


class Stragglers(Table):
    """This share of the jobs takes so many times as long, for no reason that a client can see."""

    share: float = not_negative(0.02, high=1.0)
    factor: float = positive(10.0, low=1.0, high=1e6)


class Prompts(Table):
    """What prompts cost.

    Attributes:
        prefill_tokens_per_s: how fast a prompt is read before the first token; None if prompts
            cost nothing.
        cached_share: the share of the prompts 95 % of whose tokens a prompt cache holds: these
            tokens cost nothing. With a share above 0 every reply states its `cached_tokens`.

    """

    prefill_tokens_per_s: float | None = positive(None, low=1e-3)
    cached_share: float = not_negative(0.0, high=1.0)


class Variation(Prompts):
    """What prompts cost, and how service times vary.

    Attributes:
        stragglers: jobs that take far longer than others alike.

    """

    stragglers: Stragglers | None = None


class Jittered(Variation):
    """What prompts cost, and how service times vary.

    Attributes:
        jitter: sigma of a lognormal factor of median 1 on each job's whole service time.

    """

    jitter: float = not_negative(0.0, high=5.0)


def without_variation(params: Jittered) -> bool:
    """Return True if jobs of one length are alike: no prompt counts and nothing is drawn."""
    prompts = params.prefill_tokens_per_s is not None or params.cached_share > 0
    return not prompts and not params.jitter and params.stragglers is None


def service_factors(params: Jittered, seed: int, job: Job) -> tuple[float, float]:
    """Return by what factors this job's service takes longer than its tokens say.

    One up to its first token, one after it; what is drawn is one for both.
    """
    if job.luck is not None:
        return job.luck
    factor, job_id = 1.0, job.id
    if params.jitter:
        factor = math.exp(params.jitter * standard_normal(seed, _JITTER_STREAM, job_id))
    slow = params.stragglers
    if slow is not None and unit(seed, _STRAGGLER_STREAM, job_id) < slow.share:
        factor *= slow.factor
    return factor, factor


def cached_of(params: Prompts, seed: int, job: Job) -> int | None:
    """Return how many of the prompt's tokens are cached; None if there is no prompt cache."""
    if not params.cached_share or job.cached_tokens is not None:
        return job.cached_tokens
    cached = unit(seed, _CACHED_STREAM, job.id) < params.cached_share
    return int(CACHED_PART * job.prompt_tokens) if cached else 0


def prefill_s(params: Prompts, job: Job, cached_tokens: int | None) -> float:
    """Return how long the prompt takes at full speed, in seconds."""
    if params.prefill_tokens_per_s is None:
        return 0.0
    return (job.prompt_tokens - (cached_tokens or 0)) / params.prefill_tokens_per_s


STEEPEST_THETA = 10.0
"""With one more than fits in a hundred already a tenth is lost."""
LEAST_SHARE = 1e-6
"""Of its speed a request keeps that much, or a crowd's end is later than time can be counted."""


class PlacesParams(Jittered):
    """What a model says of itself that `sharing.py` serves."""

    tokens_per_s: float = positive(200.0, low=1e-3)
    ttft_s: float = not_negative(0.15)

    @abstractmethod
    def places(self) -> float:
        """Return how many jobs may be in service at once; inf if there is no such bound."""

    @abstractmethod
    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of each of `active` jobs."""


class SlotsParams(PlacesParams):
    """What continuous batching looks like from outside.

    Each of n active requests emits tokens_per_s / (1 + beta x n), after ttft_s; the time to the
    first token does not stretch with n.

    Source:
        PAPER.md's provider models; the constants are ours.

    """

    slots: int = count(8)
    beta: float = not_negative(0.0, high=1e3)

    def places(self) -> float:
        """Return the number of slots."""
        return self.slots

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of each active request."""
        return 1.0, self.tokens_per_s / (1.0 + self.beta * active)


class SerialParams(PlacesParams):
    """`slots` with one slot, such as a small local model behind a lock."""

    def places(self) -> float:
        """Return 1."""
        return 1

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of the one active request."""
        return 1.0, self.tokens_per_s


class SharedParams(PlacesParams):
    """Each of n active requests emits tokens_per_s x min(1, capacity/n), after ttft_s.

    The time to the first token stretches by the same factor: prefill shares the machine too.

    Source:
        PAPER.md's provider models; the constants are ours.

    """

    capacity: int = count(8)

    def places(self) -> float:
        """Return inf: nobody waits at the door."""
        return math.inf

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of each active request."""
        share = min(1.0, self.capacity / active)
        return share, self.tokens_per_s * share


class ThrashParams(SharedParams):
    """As `shared`, but beyond capacity the total falls as (capacity/n)^theta.

    What preemption of the KV cache looks like from outside: work is thrown away and done again.
    Each request thus emits tokens_per_s x (capacity/n)^(1 + theta), or a millionth of its speed.

    Source:
        PAPER.md's provider models; the constants are ours.

    """

    theta: float = not_negative(0.5, high=STEEPEST_THETA)

    def speeds(self, active: int) -> tuple[float, float]:
        """Return (prefill seconds per second, tokens per second) of each active request."""
        share = max(LEAST_SHARE, min(1.0, self.capacity / active) ** (1.0 + self.theta))
        return share, self.tokens_per_s * share
