"""What a class's queue waits for: its head's obstacle, and so that of all behind the head."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class ClassHold:
    """What keeps the head of one class's queue, with the seconds so far by cause.

    Who waits behind the head waits for the same: as soon as that falls, the queue moves. So one
    note for the queue tells the time of everybody in it.

    Attributes:
        cause: what keeps the head now, as in `Why.waits`; empty until it was looked at.
        since: up to when `seconds` are counted, driver seconds.
        seconds: by cause, since the queue was made.
        sent: how many of the class were sent.

    """

    cause: str
    since: float
    seconds: dict[str, float] = field(default_factory=dict)
    sent: int = 0

    def turn(self, cause: str, now: float) -> None:
        """Note what keeps the head from now on."""
        if cause != self.cause:
            self.seconds, self.since = self.seconds_until(now), now
            self.cause = cause

    def seconds_until(self, now: float) -> dict[str, float]:
        """Return the seconds by cause, those that go on included; changes nothing."""
        seconds, cause = self.seconds.copy(), self.cause
        if cause and now > self.since:
            seconds[cause] = seconds.get(cause, 0.0) + now - self.since
        return seconds
