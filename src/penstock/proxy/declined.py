"""What ends a request: an answer of ours before it is scheduled, or an attempt that breaks."""

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


class Declined(PenstockError):
    """The request ends here, with an answer of ours.

    Attributes:
        status: HTTP status.
        code: a stable word for programs.
        message: a sentence for people; never holds a prompt or a key.
        headers: what the answer says beside it.

    """

    def __init__(
        self, status: int, code: str, message: str, headers: dict[str, str] | None = None
    ) -> None:
        """Keep what the answer needs."""
        super().__init__(f"{status} {code}: {message}")
        self.status = status
        self.code = code
        self.message = message
        self.headers = headers or {}


def no_key() -> Declined:
    """Return the answer to a caller who has sent no key where one is needed."""
    what = "No API key was sent: put it into the Authorization or x-api-key header."
    return Declined(401, "missing_api_key", what)


def check_method(method: str, path: str, taken: tuple[str, ...]) -> None:
    """Let a method pass that a path takes.

    Raises:
        Declined: 405, with what it takes.

    """
    if method not in taken:
        methods = ", ".join(taken)
        raise Declined(
            405, "method_not_allowed", f"{path} takes {methods} only.", headers={"allow": methods}
        )
