"""How many bytes of callers' bodies are held in all: those that wait, and those under way."""

from penstock.proxy.declined import Declined


class Held:
    """What one request holds."""

    __slots__ = ("_coming_bytes", "_room", "size_bytes")

    def __init__(self, room: "BodyRoom") -> None:
        """Hold nothing yet."""
        self._room = room
        self._coming_bytes = 0
        self.size_bytes = 0

    def take_coming(self, size_bytes: int) -> None:
        """Hold so many bytes more of a body that has not come whole.

        Raises:
            Declined: 503, too many are held already.

        """
        room = self._room
        if room.coming_bytes + size_bytes > room.limit_bytes // 2:
            raise room.declined()
        self.take(size_bytes)
        room.coming_bytes += size_bytes
        self._coming_bytes += size_bytes

    def has_come(self) -> None:
        """Note that the body is whole."""
        self._room.coming_bytes -= self._coming_bytes
        self._coming_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Hold so many bytes more.

        Raises:
            Declined: 503, too many are held already.

        """
        room = self._room
        if room.used_bytes + size_bytes > room.limit_bytes:
            raise room.declined()
        room.used_bytes += size_bytes
        self.size_bytes += size_bytes

    def handed_over(self) -> "Held":
        """Return who holds it from now on."""
        other = Held(self._room)
        other.size_bytes, self.size_bytes = self.size_bytes, 0
        return other

    def give_back(self) -> None:
        """Hold nothing any more."""
        self.has_come()
        self._room.used_bytes -= self.size_bytes
        self.size_bytes = 0


class BodyRoom:
    """Counts the bytes of all requests.

    Bodies that are still coming have half of the room: whoever begins large ones and goes no
    further keeps out nobody whose body comes at once.
    """

    def __init__(self, limit_bytes: int) -> None:
        """Allow so many."""
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
        self.coming_bytes = 0

    def declined(self) -> Declined:
        """Return the refusal of a body for which there is no room."""
        return Declined(
            503,
            "too_many_bytes_waiting",
            f"The bodies of other requests fill the {self.limit_bytes} bytes that "
            "server.max_held_bytes allows, or those that are still coming half of it: "
            "send it again in a while.",
            headers={"retry-after": "1"},
        )
