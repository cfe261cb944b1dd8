"""The pace that a provider allows but does not state, learnt from what it lets pass."""

import math
from bisect import insort
from dataclasses import dataclass
from enum import Enum, auto

from penstock.core.ticket import Sent
from penstock.core.upstream.evidence import SURE_SENDS, Evidence, Flow

CALM_S = 30.0
CALM_SENDS = 30.0
"""Refusals further apart, in time and in sends at the pace, belong to different episodes."""
FIRST_PER_S = 2.0
DOUBLING_S = 1.0
FASTEST_PER_S = 1000.0
MARGIN = 0.98
UNSETTLED = 1.1
"""A measure so much above the one before it may have been of something else: faster is tried."""
LEAST_SHARE = 0.75
STEP_S = 5.0
STEP_SENDS = 10.0
FIRST_STEP = 0.01
LAST_STEP = 0.5
LONGEST_GAP_S = 30.0
"""However dear a request and however low the pace: the next one goes after it, and tells more."""
MOST_REFUSED = 64
"""So many refusals are kept in order: what passed between them is told anew as answers come."""
SLIP_S = 0.02
"""A wake-up may come that late without the pace falling behind."""


class Blame(Enum):
    """What a refusal for the rate is about."""

    PACE = auto()
    REQUEST = auto()
    """Chance, as far as we know: others pass at this pace."""
    UPSTREAM = auto()


TOLD_OFTEN = 3
"""A request that was refused so often while others passed says nothing new of the account."""


@dataclass(frozen=True, slots=True)
class RateRefusal:
    """What a refusal says, and what is known of its request.

    Attributes:
        wait_s: the retry-after, 0 if none.
        held_s: how much of it is believed for others.
        lone: whether it is one of few among answers.
        again: how often the request was refused while others, sent since before, were served.

    """

    wait_s: float
    held_s: float
    lone: bool
    again: int = 0


class LearntRate:
    """What may go in a second to one upstream that refuses and does not say what it allows.

    In one unit: every attempt costs 1 (requests), or its tokens.

    - A few refusals among answers (`lone`) start nothing; what passes between them is noted.
    - First refusal: nothing is known. Sends resume one by one, at a pace that doubles in a second;
      where it is known what has passed since an earlier refusal, at that.
    - Further refusals: whatever bucket the provider keeps, it is empty at each of them, so what
      passed in between is what flowed in. n sends in t seconds give the rate, within 1 / t (where
      the retry-after is exact, t between the ends of the two waits gives it exactly), if the pace
      held them back throughout: else the bucket may have been full in between. The pace becomes
      `MARGIN` of it and never rises by this. Less than `SURE_SENDS` tell little: one such refusal
      trims, the next ones lower by a quarter at most, and one of a request that was refused
      before, while others were served, lowers nothing. A measure that
      is well above the one before it may be of our own pace: faster is tried at once.
    - Refused though slow (`Evidence`): the pace is not to blame and stays; the request waits alone.
    - While somebody waits for the pace and nothing is refused, it grows in steps that double, of
      1 % at first, or of what the measure left open. Each such probe costs a refusal: one in some
      25 s, or 40 sends if that is more.
    - Nothing passed since: no limit but a storm. The pace stays, and the upstream's health waits,
      unless this one was refused before, while others passed: it may be that request.
    - A request that was refused `TOLD_OFTEN` times while others passed says nothing new: it has
      taken nothing of the pace, and waits alone. Not so what is dear: a bucket of tokens refuses it
      while cheap ones pass.
    - A ramp goes on by what is sent: a gap between two sends, however long, doubles it once.

    Source:
        Ours. Ramp and steps are the slow start and the avoidance of Jacobson, "Congestion
        Avoidance and Control", SIGCOMM 1988.

    """

    def __init__(self, *, began_at: float = -math.inf) -> None:
        """Start with no limit known; attempts from before `began_at` teach nothing."""
        self.per_s = math.inf
        self.evidence = Evidence()
        self._began_at = began_at
        self._proof_sends = 1
        self._gives_back = True
        self._units = 0.0
        self._sends = 0
        self._refused: list[Sent] = []
        self._ramping = False
        self._ramp_at = 0.0
        self._begun_at = -math.inf
        self._first_per_s = 0.0
        self._settled_per_s = 0.0
        self._survived_per_s = 0.0
        self._anchor: Sent | None = None
        self._anchor_wait_s = 0.0
        self._refused_at = -math.inf
        self._empty_at = -math.inf
        self._pressed = False
        self._saturated = False
        self._few = False
        self._step = FIRST_STEP
        self._stepped_at = -math.inf
        self._served_after_all = False

    def in_tokens(self, refused_tokens: float, *, now: float) -> "LearntRate":
        """Return a pace in tokens that goes on from this one in requests, at a refusal."""
        rate = LearntRate(began_at=now)
        rate.per_s = self.evidence.mean_tokens * self.per_s
        rate._sends, rate._units = 1, refused_tokens
        rate._refused_at = now
        rate._anchor = Sent(now, refused_tokens, refused_tokens, 0.0, 0, slow=False)
        rate._refused = [rate._anchor]
        rate._saturated = True
        rate._proof_sends = SURE_SENDS  # a few predicted costs may all be too high
        rate._gives_back = False
        return rate

    @property
    def _mean_cost(self) -> float:
        return self._units / self._sends

    def open_at(self, cost: float, *, now: float) -> float:
        """Return when to ask again: `now` if one of that cost may go now."""
        at = self.due_at(cost)
        if at - SLIP_S <= now:
            return now
        self._pressed = True
        return at

    def due_at(self, cost: float) -> float:
        """Return when the pace has room for one of that cost, be it past or to come."""
        return self._empty_at + min(LONGEST_GAP_S, cost / self.per_s)

    def sent(self, cost: float, tokens: float, *, now: float) -> Sent:
        """Note a send."""
        slow = self.evidence.sent(cost, tokens, now=now) if self._refused else False
        note = Sent(now, cost, tokens, self._units, self._sends, slow)
        self._units += cost
        self._sends += 1
        if self.per_s < math.inf:
            self._move(cost, now)
        return note

    def served_after_all(self) -> None:
        """Note that one was served that had been refused: refusals are not about requests alone."""
        self._served_after_all = True

    def settle(self, sent: Sent, cost: float) -> None:
        """Replace what a send was thought to cost by what it did cost."""
        if sent.at >= self._began_at:
            self._units += max(1.0, cost) - sent.cost

    def _move(self, cost: float, now: float) -> None:
        cost_s = min(LONGEST_GAP_S, cost / self.per_s)
        if now - self._empty_at > 2.0 * cost_s + SLIP_S:
            self._saturated = False
        self._empty_at = max(self._empty_at + cost_s, now - SLIP_S)
        if self._ramping:
            ramp_s = min(DOUBLING_S, max(0.0, now - self._ramp_at))
            self.per_s *= 2.0 ** (ramp_s / DOUBLING_S)
            self._ramp_at = now
        elif self._pressed and now - self._stepped_at >= max(
            STEP_S, STEP_SENDS * self._mean_cost / self.per_s
        ):
            self._survived_per_s = self.per_s
            self.per_s *= 1.0 + self._step
            self._step = min(LAST_STEP, 2.0 * self._step)
            self._stepped_at = now
        self._pressed = False
        if self.per_s > FASTEST_PER_S * self._mean_cost:
            self.per_s, self._ramping = math.inf, False

    def refused(self, sent: Sent, told: RateRefusal, *, now: float) -> Blame:
        """Note a refusal, and return what is to blame."""
        if sent.at < self._began_at:
            return Blame.REQUEST
        calm = self._is_calm(now)
        self._refused_at = now
        if calm:
            self._begin_episode()
        last = self._note(sent)
        self.evidence.not_passed(sent)
        fresh = calm or self.evidence.refused(sent.tokens, slow=sent.slow)
        if told.again > TOLD_OFTEN and not self.evidence.is_dear(sent.tokens):
            return self._none_taken(sent)
        since_anchor = None
        if last is not None and self._anchor is not None:
            since_last = self._flow(last, sent, now)
            since_anchor = self._flow(self._anchor, sent, now)
            if since_last.n <= 0 or since_last.took_s <= 0.0:
                return self._none_passed(sent, told, now=now)
            for flow in () if fresh else (since_last, since_anchor):
                if flow.n >= self._proof_sends:
                    self.evidence.passed(flow)
        sure = since_anchor is not None and since_anchor.n >= SURE_SENDS
        blame = self._steer(sent, told, since_anchor, sure=sure, now=now)
        if fresh or sure:  # from here on it is measured anew; else on from the same refusal
            self._anchor, self._anchor_wait_s = sent, told.wait_s
            self._saturated = True
        return blame

    def _is_calm(self, now: float) -> bool:
        """Return whether the last refusal is so long ago that it was of another episode."""
        return now - self._refused_at > max(CALM_S, CALM_SENDS * self._mean_cost / self.per_s)

    def _begin_episode(self) -> None:
        self.evidence.begin()
        self._refused.clear()
        self._anchor = None

    def _steer(
        self, sent: Sent, told: RateRefusal, flow: Flow | None, *, sure: bool, now: float
    ) -> Blame:
        """Begin to hold a pace, or lower it, by what has passed since an earlier refusal."""
        if self.per_s == math.inf:
            return Blame.REQUEST if told.lone else self._start(sent, flow, told.held_s, now=now)
        if flow is None:
            self._few = False
            self._hold(sent, told.held_s, now)
            self._lower(MARGIN / (1.0 + self._step / 2.0), now)
            return Blame.PACE
        if sent.slow or (told.lone and self._ramping and not self._settled_per_s):
            return Blame.REQUEST
        self._hold(sent, told.held_s, now)
        self._measured(flow, told, sure=sure, now=now)
        return Blame.PACE

    def _note(self, sent: Sent) -> Sent | None:
        """Put a refused one among the others, and return the last that was known of."""
        last = self._refused[-1] if self._refused else None
        insort(self._refused, sent, key=_order)
        del self._refused[:-MOST_REFUSED]
        if self._anchor is not None and _order(self._anchor) < _order(self._refused[0]):
            self._anchor, self._anchor_wait_s = self._refused[0], 0.0  # not kept: any bound holds
        return last

    def _flow(self, first: Sent, second: Sent, now: float) -> Flow:
        between = [each for each in self._refused if _order(first) <= _order(each) < _order(second)]
        n = second.sends_before - first.sends_before - len(between)
        units = second.units_before - first.units_before - sum(each.cost for each in between)
        return Flow(first, second, n, units, now)

    def _start(self, sent: Sent, flow: Flow | None, wait_s: float, *, now: float) -> Blame:
        """Begin to hold a pace: at what is proven, else from little to ever more."""
        self._few = False
        self._settled_per_s = 0.0
        self._ramping = flow is None or flow.n < SURE_SENDS or self.evidence.proven_per_s == 0.0
        self._ramp_at = now + wait_s
        self._begun_at = now
        self._first_per_s = FIRST_PER_S * self._mean_cost
        if flow is not None:
            self._first_per_s = max(self._first_per_s, flow.least_per_s)
        self.per_s = self._first_per_s if self._ramping else self.evidence.proven_per_s
        self._step, self._stepped_at = FIRST_STEP, now
        self._hold(sent, wait_s, now)
        return Blame.UPSTREAM if flow is None else Blame.PACE

    def _none_passed(self, sent: Sent, told: RateRefusal, *, now: float) -> Blame:
        """Return what one of two refusals in a row is about: itself, if it was refused before."""
        if not (told.again and told.lone):
            self._hold(sent, told.held_s, now)
        return Blame.REQUEST if told.again else Blame.UPSTREAM

    def _none_taken(self, sent: Sent) -> Blame:
        """Give back the place in the pace of a request that is itself why it was refused."""
        if self.per_s < math.inf and self._gives_back:
            self._empty_at -= min(LONGEST_GAP_S, sent.cost / self.per_s)
        return Blame.REQUEST

    def _hold(self, sent: Sent, wait_s: float, now: float) -> None:
        """Let the next one go after the wait: a refused request has taken nothing.

        In tokens, what it would have taken is only predicted, and the pace stays on the safe side.
        """
        cost_s = min(LONGEST_GAP_S, sent.cost / self.per_s)
        if wait_s > 0.0 and self._gives_back:
            self._empty_at -= cost_s
        self._empty_at = max(self._empty_at, now + wait_s - cost_s)

    def _measured(self, flow: Flow, told: RateRefusal, *, sure: bool, now: float) -> None:
        """Lower the pace to the rate that passed between two refusals, each of them one too many.

        Unless many passed, a refusal of a request that was refused before may be about it alone:
        not where more were refused than passed, and one that was refused has been served since. A
        ramp is not refuted by what was sent before it began, nor where as much passed as it allows.
        """
        sends = flow.second.sends_before - flow.first.sends_before
        few_refused = flow.n >= sends - flow.n
        alone = told.again and not sure and (few_refused or not self._served_after_all)
        if alone or flow.second.at < self._begun_at:
            return
        if self._ramping and self._settled_per_s:  # faster was tried: what was measured was right
            self.per_s = min(self.per_s, max(self._first_per_s, self.evidence.proven_per_s))
            self._few = self._ramping = False
            self._step, self._stepped_at = FIRST_STEP, now
            return
        least, likely = self._rate_of(flow, told.wait_s)
        if self._ramping and likely >= self.per_s and not sure:
            return
        share = min(1.0, max(likely / self.per_s, self._least_share(sure=sure)))
        self._few, self._ramping = not sure, False
        self._lower(MARGIN * share, now)
        if not sure:
            cost = flow.second.cost
            open_share = cost / max(flow.units, cost)  # which part of the rate is not known
            self._step = min(LAST_STEP, max(FIRST_STEP, open_share))
        elif least > UNSETTLED * self._settled_per_s:
            self._settled_per_s = least
            self._ramping, self._ramp_at, self._first_per_s = True, now + told.held_s, self.per_s

    def _rate_of(self, flow: Flow, wait_s: float) -> tuple[float, float]:
        """Return the least rate that let this flow pass, and the likely one.

        Where the provider's waits are exact, its bucket was empty at the end of both, and what
        passed between these ends is the rate. It is believed within what the refusals bound: the
        first one lacked less than its cost, and so did the second.
        """
        units = max(flow.units, flow.second.cost)
        between_ends_s = flow.took_s + wait_s - self._anchor_wait_s
        exact = units / between_ends_s if between_ends_s > 0.0 else math.inf
        least = (units - flow.first.cost) / flow.took_s
        most = (units + flow.second.cost) / flow.took_s
        return least, max(least, min(most, exact))

    def _least_share(self, *, sure: bool) -> float:
        """Return which share of the pace a measure leaves at least: few sends tell little."""
        if sure:
            return LEAST_SHARE if self._ramping or not self._saturated else 0.0
        return LEAST_SHARE if self._ramping or self._few else 1.0

    def _lower(self, share: float, now: float) -> None:
        least = max(self.evidence.proven_per_s, self._survived_per_s)
        self.per_s = max(self.per_s * share, min(self.per_s, least))
        self._survived_per_s = 0.0
        self._step, self._stepped_at = FIRST_STEP, now


def _order(sent: Sent) -> int:
    return sent.sends_before
