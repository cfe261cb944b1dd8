"""What is asked of the provider: a list of requests with their truth and what is told of them."""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from random import Random

from penstock.core.model import Request, TrafficClass, bucket_of
from penstock.sim.calls import BUCKET_RANGE_TOKENS, Item, normal_of
from penstock.sim.information import Informant


@dataclass(slots=True)
class Load:
    """One request as it will be: what the scheduler sees, and the truth."""

    request: Request
    output_tokens: int
    bucket: str
    deadline: float
    """Driver seconds: the true deadline, which the metrics keep."""
    luck: tuple[float, float] | None = None
    """By what factors its service takes longer than its tokens say, up to its first token and
    after it; None to draw it."""
    cached_tokens: int | None = None
    """How many of its prompt's tokens the provider has cached; None to draw it."""
    streamed: bool | None = None
    """Whether its tokens are read as they come; None to draw it."""
    leaves_at: float = math.inf
    """Driver seconds at which its caller goes away, if it has no reply by then."""
    refusals: tuple[tuple[float, float], ...] = ()
    """Of each refusal of it, in order: after how many seconds it is heard of, and the jitter of the
    pause that follows; more of them are drawn."""


@dataclass(frozen=True, slots=True)
class Workload:
    """Everything that arrives in one run, in order of arrival, and the classes it belongs to."""

    loads: tuple[Load, ...]
    classes: tuple[TrafficClass, ...]


@dataclass(frozen=True, slots=True)
class TokenRange:
    """Lengths from `low` to `high`, loguniform; (0, 0) is no length at all."""

    low: int = 0
    high: int = 0

    def draw(self, u: float) -> int:
        """Return the length at quantile u."""
        if self.high <= 0:
            return 0
        low = max(self.low, 1)
        return min(self.high, int(low * ((self.high + 1) / low) ** u))


@dataclass(frozen=True, slots=True)
class LogNormalTokens:
    """Lengths whose logarithm is normal, up to `most`."""

    median: float
    sigma: float
    most: int

    def draw(self, u: float) -> int:
        """Return the length at quantile u."""
        # The logarithm is cut before exp, which could not hold what a long tail asks for.
        log = math.log(self.median) + self.sigma * normal_of(u)
        return round(math.exp(min(log, math.log(self.most))))


NO_PROMPTS = TokenRange()


def stream_of(seed: int, name: str) -> Random:
    """Return the random stream of that name: changing one thing leaves the other draws alone."""
    return Random(f"{seed}/{name}")


def drawn_items(
    times: Iterable[float],
    *,
    count: int,
    mix: Mapping[str, float],
    seed: int,
    prompt_tokens: TokenRange | LogNormalTokens = NO_PROMPTS,
) -> Iterator[Item]:
    """Yield `count` calls: a bucket by the mix, then a length loguniform within the bucket."""
    which, length, prompt = (stream_of(seed, n) for n in ("buckets", "tokens", "prompts"))
    buckets = [b for b in BUCKET_RANGE_TOKENS if mix.get(b, 0.0) > 0]
    ranges = {b: TokenRange(*BUCKET_RANGE_TOKENS[b]) for b in buckets}
    prompted = prompt_tokens != NO_PROMPTS
    total = math.fsum(mix[b] for b in buckets)
    for at in islice(times, count):
        bucket = _pick(buckets, mix, which.random() * total)
        tokens = ranges[bucket].draw(length.random())
        yield Item(at, tokens, prompt_tokens.draw(prompt.random()) if prompted else 0)


def build_workload(
    items: Iterable[Item], informant: Informant, *, deadline_s: Mapping[str, float], seed: int
) -> Workload:
    """Return the workload: ids by arrival, each request as the teller lets it be seen."""
    chance = stream_of(seed, "information")
    loads: list[Load] = []
    ordered = sorted(items, key=lambda item: item.at)
    for number, item in enumerate(ordered, start=1):
        bucket = bucket_of(item.output_tokens)
        known = informant.inform(item, bucket, chance)
        true_s = deadline_s[bucket] if item.deadline_s is None else item.deadline_s
        request = Request(
            number,
            known.traffic_class,
            item.at,
            known.estimate,
            item.at + known.deadline_s,
            tenant=item.tenant,
            prompt_tokens=item.prompt_tokens,
            session=item.session,
        )
        loads.append(Load(request, item.output_tokens, bucket, item.at + true_s))
    return Workload(tuple(loads), informant.classes())


def _pick(buckets: list[str], mix: Mapping[str, float], mark: float) -> str:
    for bucket in buckets:
        mark -= mix[bucket]
        if mark < 0:
            return bucket
    return buckets[-1]
