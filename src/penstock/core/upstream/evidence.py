"""Whether refusals for the rate depend on the rate: what a bucket would have to let pass."""

from dataclasses import dataclass, replace

from penstock.core.ticket import Sent

SURE_SENDS = 10
"""So many that passed between two refusals give the rate within 10 %."""
PROVEN_SHARE, SLOW_SHARE = 0.9, 0.95
"""Of the rate that passed: what is taken for proven, and up to what an attempt is slow. Clocks and
ways differ, and limits a little with them."""
SURE_REFUSALS = 3
ALIKE = 3.0
"""A share of refusals down to a third of another is called as large: three are no exact count."""
CHANGED_SENDS = 100
"""Where so many slow attempts have passed and one is refused, something has changed since."""


@dataclass(frozen=True, slots=True)
class Flow:
    """What passed, as far as is known, between two attempts of which each was refused.

    Attributes:
        n: how many passed. units: what they cost.
        heard_at: when the second refusal came, so that the attempt had been met by then.

    """

    first: Sent
    second: Sent
    n: int
    units: float
    heard_at: float

    @property
    def took_s(self) -> float:
        """Return the time between the two as they were sent."""
        return self.second.at - self.first.at

    @property
    def least_per_s(self) -> float:
        """Return what flowed in at least: the first lacked less than its cost."""
        return (self.units - self.first.cost) / (self.heard_at - self.first.at)


class _RefusalShare:
    """Attempts of one kind: how many, how many refused, and what they cost."""

    __slots__ = ("cost", "refused", "refused_cost", "sent")

    def __init__(self) -> None:
        self.sent = self.refused = 0
        self.cost = self.refused_cost = 0.0

    @property
    def share(self) -> float:
        return self.refused / max(1, self.sent)


class Evidence:
    """What passed and what was refused at one upstream, in one unit: requests, or tokens.

    A bucket that refuses is empty. What passes from then on has flowed in, so at least that much
    flows in a second: the *proven* rate. An attempt that leaves behind the one before it the gap
    that its cost takes at the proven rate is *slow*: no bucket refuses it, of whatever size. Where
    slow attempts are refused as often as fast ones, refusals do not depend on the rate, or not in
    this unit. Where many slow ones have passed before one is refused, or slow ones are refused far
    more often than the fast ones before them, the limit has fallen, and what was proven no longer
    is.

    Source:
        Ours; the bucket is that of RFC 2697.

    """

    __slots__ = ("_fast", "_last_at", "_proof", "_slow", "proven_per_s", "refuted")

    def __init__(self) -> None:
        """Start with nothing proven and nothing refuted."""
        self._last_at = 0.0
        self.begin()

    def begin(self) -> None:
        """Forget all."""
        self.proven_per_s = 0.0
        self._proof: Flow | None = None
        self.refuted = False
        self._slow = _RefusalShare()
        self._fast = _RefusalShare()

    def sent(self, cost: float, tokens: float, *, now: float) -> bool:
        """Note an attempt and return whether it is slow."""
        slow = (now - self._last_at) * self.proven_per_s * (SLOW_SHARE / PROVEN_SHARE) >= cost
        self._last_at = now
        tally = self._slow if slow else self._fast
        tally.sent += 1
        tally.cost += tokens
        return slow

    def passed(self, flow: Flow) -> None:
        """Note what an upstream that had refused let pass until it refused again."""
        if PROVEN_SHARE * flow.least_per_s > self.proven_per_s:
            self._prove(flow)

    def not_passed(self, sent: Sent) -> None:
        """Note that an attempt has been refused: it may have been counted as passed."""
        proof = self._proof
        if proof and proof.first.sends_before < sent.sends_before < proof.second.sends_before:
            self._prove(replace(proof, n=proof.n - 1, units=proof.units - sent.cost))

    def _prove(self, flow: Flow) -> None:
        self._proof = flow
        self.proven_per_s = max(0.0, PROVEN_SHARE * flow.least_per_s)

    def refused(self, tokens: float, *, slow: bool) -> bool:
        """Note a refusal; return whether it ends what was known, because something has changed."""
        tally = self._slow if slow else self._fast
        if slow and not tally.refused and tally.sent > CHANGED_SENDS:
            self.begin()
            return True
        tally.refused += 1
        tally.refused_cost += tokens
        if slow and tally.refused >= SURE_REFUSALS:
            fast = self._fast
            if tally.share * fast.sent > ALIKE * (fast.refused + 1):
                self.begin()
                return True
            self.refuted = tally.share * ALIKE >= fast.share
        return False

    @property
    def mean_tokens(self) -> float:
        """Return what an attempt cost on average."""
        slow, fast = self._slow, self._fast
        return (slow.cost + fast.cost) / (slow.sent + fast.sent)

    def is_dear(self, tokens: float) -> bool:
        """Return whether that is more than an attempt cost on average."""
        return tokens * (self._slow.sent + self._fast.sent) > self._slow.cost + self._fast.cost

    @property
    def refused_are_dear(self) -> bool:
        """True if the refused slow attempts cost more than slow attempts do."""
        slow = self._slow
        return slow.refused_cost * slow.sent > slow.cost * slow.refused
