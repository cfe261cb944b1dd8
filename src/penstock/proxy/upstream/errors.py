"""What may go wrong with an attempt, and what of it the scheduler wants to know."""

from penstock.errors import PenstockError


class UpstreamError(PenstockError):
    """An attempt broke before or within its answer. The text never holds a body or a key."""


class DialError(UpstreamError):
    """No connection came about: refused, unreachable, unresolved, TLS failed, or too slow."""


class ResetError(UpstreamError):
    """The upstream closed or reset the connection before the answer was complete."""


class CrossedError(ResetError):
    """A connection that had served others ended without a byte: perhaps it was closed before."""


class SilenceError(UpstreamError):
    """The upstream sent nothing for longer than the configuration allows."""


class MalformedError(UpstreamError):
    """The upstream's bytes are not HTTP."""
