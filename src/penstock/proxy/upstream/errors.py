"""What can go wrong between us and an upstream, as the relay tells it apart."""

from penstock.errors import PenstockError


class UpstreamError(PenstockError):
    """An attempt broke before or within its answer. The text never holds a body or a key."""


class DialError(UpstreamError):
    """No connection came about: refused, unreachable, unresolved, TLS failed, or too slow."""


class ResetError(UpstreamError):
    """The upstream closed or reset the connection before the answer was complete."""


class SilenceError(UpstreamError):
    """The upstream sent nothing for longer than the configuration allows."""


class MalformedError(UpstreamError):
    """The upstream's bytes are not HTTP."""
