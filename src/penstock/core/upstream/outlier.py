"""Outlier detection: nothing comes back from an upstream, or half of it is broken."""

import math
from collections.abc import Iterable

from penstock.core.backoff import backoff_s
from penstock.core.ticket import Ticket

SILENCE_S, SILENCE_RATIO = 5.0, 10.0
LEFT_S, LEFT_RATIO = 1.0, 3.0
OUTCOMES, FEW = 20, 10
_WINDOW = (1 << OUTCOMES) - 1
_PAROLE = 0b1111 << FEW - 4
PROBE_S, LONGEST_PROBE_S = 5.0, 40.0


class OutlierDetector:
    """What speaks against an upstream though it refuses nothing and does not fail three times.

    - Silence: an attempt has no first token and no end after `SILENCE_RATIO` times its predicted
      service time (at least `SILENCE_S`), and nothing else came back meanwhile. Any answer ends it.
    - Faults: at least half of the last `FEW` to `OUTCOMES` attempts broke, or were left by their
      callers after `LEFT_RATIO` times the predicted time without a first token. A reply to an
      attempt sent since ends it, on parole: two more faults than replies, and it is back.

    Who is in doubt gets a probe now and then, 5, 10, 20 and 40 s apart, as long as another upstream
    serves; alone it is used as ever, for half of the replies is better than none.

    Source:
        Outlier detection by success rate, as in Envoy, and by silence, ours.

    """

    def __init__(self) -> None:
        """Start without any."""
        self.held = False
        self.look_at = math.inf
        """Before this no look is needed: there can be no doubt."""
        self.probe_at = -math.inf
        self._silent = False
        self._since = -math.inf
        self._heard_at = -math.inf
        self._faults = 0
        self._seen = 0
        self._probe_waits = 0

    def sent(self, ticket: Ticket, expected_s: float, now: float) -> None:
        """Note an attempt, and how long it is expected to take."""
        ticket.expected_s = expected_s
        due = now + (SILENCE_RATIO * expected_s if expected_s > 0.5 else SILENCE_S)
        if due < self.look_at:
            self.look_at = due
        if self.held:
            self._wait_for_probe(now)

    def heard(self, now: float) -> None:
        """Note a sign of life: a first token, a reply, a refusal."""
        self._heard_at = now
        if self._silent:
            self._silent = self.held = False
        if not self.held:
            self.look_at = now + SILENCE_S

    def stalled(self, now: float) -> None:
        """Note that nobody listened until now: no silence has lasted longer."""
        if not self.held:
            self._heard_at = now

    def replied(self, sent_at: float, now: float) -> None:
        """Note a complete reply."""
        self.heard(now)
        if self._seen < OUTCOMES or self._faults:
            if self.held:
                if sent_at < self._since:
                    return
                self._faults, self._seen = _PAROLE, FEW
                self.held = False
                self.look_at = self._heard_at + SILENCE_S
            self._note(0)
        if self._probe_waits and 4 * self._faults.bit_count() < self._seen:
            self._probe_waits = 0

    def broke(self, sent_at: float, now: float) -> None:
        """Note an attempt that broke on the upstream's side."""
        if self.held and sent_at < self._since:
            return
        self._note(1)
        if self._seen >= FEW and 2 * self._faults.bit_count() >= self._seen:
            self._begin(now)

    def left(self, ticket: Ticket, now: float) -> None:
        """Note an attempt whose caller has gone."""
        waited_s = now - ticket.dispatched_at
        if ticket.first_token_at == ticket.first_token_at:  # not nan: there was one
            return
        if not self.held and self._silence_at(ticket) <= now:
            self._silent = True
            self._begin(now)
        if waited_s > max(LEFT_S, LEFT_RATIO * ticket.expected_s):
            self.broke(ticket.dispatched_at, now)

    def look(self, flying: Iterable[Ticket], now: float) -> bool:
        """Return whether the upstream is held for an outlier; asked once `look_at` has come.

        It is from now on if one of the tickets in flight there has been silent for too long.
        """
        if self.held:
            return True
        self.look_at = min(map(self._silence_at, flying), default=math.inf)
        if self.look_at <= now:
            self._silent = True
            self._begin(now)
        return self.held

    def _silence_at(self, ticket: Ticket) -> float:
        """Return when the ticket's silence tells against the upstream; inf if it has begun."""
        if ticket.first_token_at == ticket.first_token_at:
            return math.inf
        since = max(ticket.dispatched_at, self._heard_at)
        return since + max(SILENCE_S, SILENCE_RATIO * ticket.expected_s)

    def _note(self, fault: int) -> None:
        self._faults = (self._faults << 1 | fault) & _WINDOW
        if self._seen < OUTCOMES:
            self._seen += 1

    def _begin(self, now: float) -> None:
        if self.held:
            return
        self.held = True
        self._since = now
        self.look_at = -math.inf
        self._wait_for_probe(now)

    def _wait_for_probe(self, now: float) -> None:
        """Put the next probe off, by twice as long as the one before it, up to the longest wait."""
        self._probe_waits += 1
        wait_s = backoff_s(self._probe_waits, 1.0, base_s=PROBE_S, cap_s=LONGEST_PROBE_S)
        self.probe_at = now + wait_s
