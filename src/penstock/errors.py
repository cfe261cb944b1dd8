"""The error tree. Imports nothing."""


class PenstockError(Exception):
    """Everything that penstock raises on its own account."""


class ConfigError(PenstockError, ValueError):
    """A configuration that cannot be used; the text names the key, the value and the rule."""


class ProtocolError(PenstockError, ValueError):
    """An event that cannot have happened: two clocks, a lost message or a driver's bug."""


_OF_PROVIDER = {
    "quota": "the provider's account is spent and nothing was sent; add credit or raise its limit "
    "there, or configure another upstream (`penstock lift` ends the pause at once)",
    "rate": "the provider is out for longer than this request can wait and nothing was sent; "
    "give it a later deadline, send less, or configure another upstream",
    "upstream": "the provider did not serve it and another attempt is of no use now",
}
"""What the provider's state means for a request that it holds up, and what to do about it."""


class Refused(PenstockError):
    """The scheduler would not let a request through; nothing of it reached the provider now.

    Attributes:
        id: the request's id, as `penstock explain` takes it.
        reason: "shed", "queue_full", "expired", "hopeless" (it can no longer be on time),
            "draining", "upstream" (the provider's last answer stands), "quota" (the account is
            spent), "rate" (the provider asks for a longer pause than the request can wait),
            "no_upstream", "too_large" (no wait would make room for it) or "fault" (a defect of
            penstock) or "blocked_loop" (a synchronous call would block the event loop that is to
            make room for it).
        rung: the cost ladder's step it stood on (its predicted bucket).
        predicted_cost_tokens: what it was expected to cost, in output tokens.
        severity: overload in [0, 1] at the decision.
        retry_after_s: the earliest time at which a new try makes sense; None if never.
        queued_s: how long it had waited.
        provider_said: the provider's last words to this account, shortened and without keys, where
            the reason is "quota", "rate" or "upstream"; else empty.

    """

    def __init__(
        self,
        request_id: str,
        reason: str,
        *,
        rung: str,
        predicted_cost_tokens: float,
        severity: float,
        retry_after_s: float | None,
        queued_s: float = 0.0,
        advice: str = "",
        provider_said: str = "",
    ) -> None:
        """Keep the facts; the text says them in one sentence, with `advice` on what to do."""
        self.id = request_id
        self.reason = reason
        self.rung = rung
        self.predicted_cost_tokens = predicted_cost_tokens
        self.severity = severity
        self.retry_after_s = retry_after_s
        self.queued_s = queued_s
        self.provider_said = provider_said
        again = advice or (
            "a new try makes no sense"
            if retry_after_s is None
            else f"try again in {retry_after_s:.1f} s"
        )
        why = _OF_PROVIDER.get(reason) or (
            f"rung {rung}, predicted cost {predicted_cost_tokens:.0f} tokens, "
            f"severity {severity:.2f}"
        )
        said = f'; the provider said: "{provider_said}"' if provider_said else ""
        super().__init__(f"penstock refused request {request_id} ({reason}): {why}; {again}{said}")
