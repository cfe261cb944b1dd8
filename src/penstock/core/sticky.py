"""Which upstream a conversation was served by last: its prompt cache is warm there."""

from penstock.core.ticket import Ticket

SESSIONS_LIMIT = 10_000


class Stickiness:
    """The last upstream of each of the most recent `SESSIONS_LIMIT` conversations."""

    def __init__(self) -> None:
        """Start with no conversation."""
        self._homes: dict[str, str] = {}

    def home(self, ticket: Ticket) -> str | None:
        """Return the upstream that served the ticket's conversation last, if known."""
        return self._homes.get(ticket.request.session) if ticket.request.session else None

    def served(self, ticket: Ticket) -> None:
        """Note where a ticket went."""
        session = ticket.request.session
        if not session:
            return
        self._homes.pop(session, None)
        self._homes[session] = ticket.upstream
        if len(self._homes) > SESSIONS_LIMIT:
            del self._homes[next(iter(self._homes))]
