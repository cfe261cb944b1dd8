"""Requests that end before the scheduler sees them: a status, a stable word, a helpful sentence."""

from penstock.errors import PenstockError


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
