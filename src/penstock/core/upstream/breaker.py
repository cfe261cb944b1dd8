"""The circuit breaker of one account at one upstream: closed, open, or half-open."""

import math
from collections.abc import Iterable
from enum import StrEnum

from penstock.core.backoff import backoff_s
from penstock.core.events import RefusalCause
from penstock.core.ticket import Ticket
from penstock.core.upstream.outlier import OutlierDetector

BACKOFF_BASE_S, BACKOFF_CAP_S = 1.0, 2.0
"""A provider that is back is noticed within the cap, so it is short: one probe costs little."""
PROBE_GAP_S = 2.0
"""Half-open, one request goes in this time, even if the one before has not been answered yet."""
TURN_S, MOST_TURNS = 0.02, 25
"""A refused request may itself be why: before it is the probe it leaves a turn to others for each
time it was sent, half a second at most. A probe that is another's first attempt is such a turn:
else newcomers, where there are always some, would be all the probes there are."""
LONGEST_PAUSE_S = 60.0
"""Who has no deadline waits no longer than this."""
LONGEST_RATE_S = 600.0
"""A refusal for the rate that asks for more is a spent quota: days are how vendors say so."""
MAX_PAUSE_S = 900.0
"""No stated wait is believed for longer: a probe is cheap, a wrong wait of days is an outage."""
FIRST_DOUBT_S, LAST_DOUBT_S = 2.0, 16.0
"""A wait that one call is told binds that call. That it binds all is confirmed by probes after 2,
4, 8 and then each 16 s, in which callers wait; of an overload, which is over when it is over, each
2 s. So is a spent account, where calls were answered before, and a wait beyond `LONGEST_PAUSE_S`;
but there the gaps go on doubling."""
OF_A_MODEL = (RefusalCause.RATE, RefusalCause.OVERLOAD)
"""Refusals that may be about one request, one model or the whole account."""
CHANCE = 0.01
USUAL_REFUSED, USUAL_BROKEN = 0.05, 0.2
"""A run of refusals or faults less likely than `CHANCE`, at the share of late, is no chance: two
refusals in a row, three faults, and more where many fail anyway. No share is taken for less."""
SPORADIC_SHARE, SPORADIC_ANSWERS, SPORADIC_PAUSE_S = 0.25, 2, 0.25
SHARE_WEIGHT = 1.0 / 16.0
"""Rate refusals that are fewer than a quarter of what comes back say little about the next
attempt; overload refusals as long as chance explains so many in a row, at the share at the last
answer: where many are refused at any load, a pause for all after each few costs more."""
DOOR = 4.0
"""What flies for so many times as long as the last refusal took will not be refused any more:
replies take seconds, and nobody may wait for one to know that others pass."""


class BreakerState(StrEnum):
    """Of a circuit, as in Nygard's book."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


class CircuitBreaker:
    """Says whether attempts may be sent. Two triggers open it.

    - Refusals and failures. Rate: open for the stated wait, else for a back-off; beyond
      `LONGEST_PAUSE_S` only those wait whose deadline allows it. Quota, or a rate refusal with a
      wait beyond `LONGEST_RATE_S`: open until then, requests go elsewhere or end at once. Where
      calls were answered before, and for others than its own request, a wait is believed step by
      step: `waits_s`.
      Overload, slow first token and faults: a back-off with full jitter, once so many came in a
      row that chance does not explain them; until then an overload refusal among answers opens it
      for a moment only, whatever wait it states, and a lone rate refusal not at all: where some are
      refused at any load, a pause for all after each would cost more than the refusals.
    - Silence or brokenness while other upstreams serve (`OutlierDetector`).

    An open circuit becomes half-open when its time is over, which is at most `max_pause_s`. Half
    open, whoever was sent least often goes as a probe, one in `PROBE_GAP_S`, and whoever has left
    as many turns to newcomers as it was sent goes with them; the first sign of life
    of what was sent after the last bad news closes it, and so does the next probe where refusals
    opened it and the one before has passed the door (`DOOR`). What was sent before says nothing,
    either way.

    Source:
        Nygard, "Release It!", 2007.

    """

    def __init__(
        self, max_pause_s: float = MAX_PAUSE_S, outlier: OutlierDetector | None = None
    ) -> None:
        """Start closed; all accounts of one upstream share their outlier detector."""
        self.max_pause_s = max_pause_s
        self.outlier = OutlierDetector() if outlier is None else outlier
        self.open_until = -math.inf
        self.exhausted_until = -math.inf
        """The end of a spent quota: nobody waits for it."""
        self.closed_to_some_until = -math.inf
        """The end of a spent quota or of a long pause: not everybody may wait for it."""
        self.half_open = False
        """It has been open and nothing has been answered since; a circuit that is open too."""
        self.forsaken = False
        """The caller of a probe has left before its answer; it has been half-open since."""
        self.cause = ""
        """What opened it last."""
        self._troubled_since = math.inf
        self.last_sent_at = -math.inf
        self._probe_at = -math.inf
        self._streak = 0
        self._faults = 0
        self._last_bad_at = -math.inf
        self._answers = 0
        self._refused_share = 0.0
        self._usual_share = 0.0
        self._refused_in_s = math.inf
        """How long the last refusal took; infinite if the last bad news was another."""
        self._probed_at = math.inf
        """When the first attempt since the last bad news was sent."""
        self._broken_share = 0.0
        self._sporadic = False
        self._turns = 0
        """Probes in a row that were their requests' first attempts, since the last answer."""

    @property
    def troubled(self) -> bool:
        """True from a refusal until the next success."""
        return self._streak > 0

    @property
    def gap_s(self) -> float:
        """In what time one probe goes, and one retry that has no budget.

        After a refusal for the rate it stays, whatever came before: more probes would be why.
        """
        return PROBE_GAP_S / (1.0 if self.cause == RefusalCause.RATE else self._chance_run)

    @property
    def _chance_run(self) -> float:
        """How many attempts are refused, all of them, as easily by chance as one is usually.

        Where most are refused and some are not, one probe that is refused says nothing.
        """
        refused = math.log(USUAL_REFUSED, max(USUAL_REFUSED, self._usual_share))
        broken = math.log(USUAL_BROKEN, max(USUAL_BROKEN, self._broken_share))
        return float(round(max(refused, broken)))

    @property
    def nothing_since(self) -> float:
        """Since when nothing that was sent has had another answer than a refusal or a fault."""
        return self._troubled_since if self._streak else math.inf

    def state(self, now: float) -> BreakerState:
        """Return the state at `now`."""
        if self.open_until > now:
            return BreakerState.OPEN
        return BreakerState.HALF_OPEN if self.half_open else BreakerState.CLOSED

    def sound(self, now: float) -> bool:
        """Return whether nothing is known against it: what has failed elsewhere may come here."""
        return not self._streak and not self._faults and self.open_until <= now

    def send_at(self, now: float) -> float:
        """Return when the next attempt may be sent; `now` if one may be now."""
        if self.open_until > now:
            return self.open_until
        return self._probe_at if self.half_open and self._probe_at > now else now

    def probe_at(
        self, attempts: int, *, unproven: bool = False, paced_to: float = -math.inf
    ) -> float:
        """Return when a request that was sent so often may be the probe; -inf if none is due.

        Until two answers have come, any attempt is one, and that of an `unproven` request: nothing
        has passed yet of what was sent since it was refused. `paced_to` is when the learnt rate has
        room: turns are counted from there, or the pace would let the refused one go first; there
        newcomers leave it room by themselves.
        """
        if not self.half_open and not unproven and self._has_served:
            return -math.inf
        left = self._turns if paced_to == -math.inf else 0
        turns = max(0, min(MOST_TURNS, attempts) - left)
        return max(self.open_until, self._probe_at, paced_to) + TURN_S * turns

    def open_at(self, now: float) -> float:
        """Return when the present pause is over; `now` if there is none."""
        return self.open_until if self.open_until > now else now

    def sent(self, attempts: int, now: float) -> None:
        """Note an attempt: half-open, it is the probe."""
        self.last_sent_at = now
        if now - self._probed_at > DOOR * self._refused_in_s:
            self.half_open = self.forsaken = False
            self._streak = 0
        if self.half_open:
            self._probe_at = now + self.gap_s
            self._turns = self._turns + 1 if attempts == 1 else 0
        self._probed_at = min(self._probed_at, now)

    def heard_refusal(self, flying: Iterable[Ticket], sent_at: float, now: float) -> None:
        """Note whether others have passed since the last bad news.

        Replies take longer than refusals: two of these that come one after the other are in a row
        only if nothing flies that was sent in between and would have been refused by now.
        """
        self._refused_in_s = now - sent_at
        passed_by = now - DOOR * self._refused_in_s
        if any(self._last_bad_at <= each.dispatched_at < passed_by for each in flying):
            self._streak = 0

    def is_lone(self, cause: RefusalCause, sent_at: float) -> bool:
        """Count a refusal, and return whether it is one of few among answers."""
        again = sent_at >= self._last_bad_at and self._streak > 0  # nothing was answered since
        known = sent_at < self._last_bad_at and not self._sporadic
        if cause is RefusalCause.OVERLOAD:
            run = self._streak + 1 if again else 1
            few = max(USUAL_REFUSED, self._usual_share) ** run >= CHANCE
        else:
            few = self._refused_share < SPORADIC_SHARE and not again
        self._refused_share += SHARE_WEIGHT * (1.0 - self._refused_share)
        self._sporadic = few and not known and self._has_served
        return self._sporadic

    def waits_s(
        self, cause: RefusalCause, retry_after_s: float | None, sent_at: float
    ) -> tuple[float | None, float | None]:
        """Return for how long its request and all others heed a refusal; None if it does not say.

        A wait of 0 is none. Others believe one step by step, and where calls were answered before,
        a long wait or a spent account is believed so by the request itself too. Where many are
        refused at any load, the steps are as much shorter as probes are closer together, and so
        many refusals are one step.
        """
        wait_s = min(retry_after_s, self.max_pause_s) if retry_after_s else None
        grave = cause is RefusalCause.QUOTA or (wait_s is not None and wait_s > LONGEST_PAUSE_S)
        told = self._has_served or cause is RefusalCause.OVERLOAD
        doubtful = told if grave else cause in OF_A_MODEL and wait_s is not None
        if not doubtful:
            return wait_s, wait_s
        doubts = self._streak if sent_at >= self._last_bad_at else max(0, self._streak - 1)
        chance_run = self._chance_run
        longest_s = LAST_DOUBT_S if cause is RefusalCause.RATE else FIRST_DOUBT_S
        doubt_s = FIRST_DOUBT_S / chance_run * 2.0 ** min(doubts / chance_run, 30.0)
        doubt_s = doubt_s if grave else min(longest_s / chance_run, doubt_s)
        believed_s = min(LONGEST_PAUSE_S if wait_s is None else wait_s, doubt_s)
        return believed_s if grave and self._has_served else wait_s, believed_s

    @property
    def _has_served(self) -> bool:
        return self._answers >= SPORADIC_ANSWERS

    def refused(
        self,
        cause: RefusalCause,
        *,
        sent_at: float,
        retry_after_s: float | None,
        jitter: float,
        lone: bool,
        now: float,
    ) -> None:
        """Note a refused attempt that speaks about more than itself, with the believed wait."""
        wait_s = retry_after_s
        if cause is RefusalCause.SLOW_FIRST_TOKEN:
            self._refused_in_s = math.inf
        if sent_at >= self._last_bad_at:
            self._went_on_badly(now)
        if cause is RefusalCause.OVERLOAD and lone:
            pause_s = backoff_s(1, jitter, base_s=SPORADIC_PAUSE_S, cap_s=SPORADIC_PAUSE_S)
            self._open(cause, now + pause_s)
            return
        long = wait_s is not None and wait_s > LONGEST_PAUSE_S
        if cause is RefusalCause.QUOTA or (wait_s is not None and wait_s > LONGEST_RATE_S):
            until = now + (LONGEST_PAUSE_S if wait_s is None else wait_s)
            if until > now + LAST_DOUBT_S or not self._has_served:
                self.exhausted_until = max(self.exhausted_until, until)
                self.closed_to_some_until = max(self.closed_to_some_until, until)
            self.half_open = True
            self._open(RefusalCause.QUOTA, until)
            return
        rate = cause is RefusalCause.RATE
        if wait_s is None or not rate or self._streak > 1:  # its word was not good enough
            wait_s = max(wait_s or 0.0, self._backoff_s(jitter))
        if long:
            self.closed_to_some_until = max(self.closed_to_some_until, now + wait_s)
        self.half_open = not rate or self._streak > 1 or wait_s >= FIRST_DOUBT_S
        self._open(cause, now + wait_s)

    def failed(self, *, sent_at: float, jitter: float, now: float) -> None:
        """Note an attempt that broke on the upstream's side."""
        self.outlier.broke(sent_at, now)
        if sent_at < self._last_bad_at:
            return
        self._faults += 1
        if max(USUAL_BROKEN, self._broken_share) ** self._faults < CHANCE:
            self._went_on_badly(now)
            self.half_open = True
            self._refused_in_s = math.inf
            self._open("faults", now + self._backoff_s(jitter))

    def succeeded(self, *, sent_at: float) -> None:
        """Note a sign of life from an attempt that was sent after the last bad news."""
        self._answers += 1
        self._refused_share -= SHARE_WEIGHT * self._refused_share
        self._usual_share = self._refused_share
        runs = 1.0 - (1.0 - SHARE_WEIGHT) ** self._faults
        self._broken_share += runs * (1.0 - self._broken_share)
        self._broken_share -= SHARE_WEIGHT * self._broken_share
        if sent_at >= self._last_bad_at:
            self._streak = self._faults = self._turns = 0
            self.half_open = self.forsaken = False

    def released(self, sent_at: float, now: float) -> None:
        """Note that an attempt ended and said nothing: half-open, the next one is the probe."""
        if sent_at >= self._last_bad_at:
            self._probe_at, self._probed_at = now, math.inf

    def left(self, sent_at: float, now: float) -> None:
        """Note that the caller of an attempt has gone, which says nothing either."""
        self.forsaken = self.forsaken or (self.half_open and sent_at >= self._last_bad_at)
        self.released(sent_at, now)

    def lift(self, now: float) -> None:
        """Close the circuit because an operator says so; the next bad news opens it anew."""
        self.open_until = self.exhausted_until = self.closed_to_some_until = -math.inf
        self.half_open = self.forsaken = False
        self._streak = self._faults = 0
        self._last_bad_at = now

    def _went_on_badly(self, now: float) -> None:
        self._troubled_since = self._troubled_since if self._streak else now
        self._streak += 1
        self._last_bad_at = now

    def _open(self, cause: str, until: float) -> None:
        if until > self.open_until:
            self.open_until, self.cause = until, str(cause)
        self._probe_at, self._probed_at = -math.inf, math.inf

    def _backoff_s(self, jitter: float) -> float:
        pause_s = backoff_s(self._streak or 1, jitter, base_s=BACKOFF_BASE_S, cap_s=BACKOFF_CAP_S)
        return pause_s * self.gap_s / PROBE_GAP_S
