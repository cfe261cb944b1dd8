"""How many bytes of callers' bodies are held in all: those that wait, and those under way."""

from penstock.proxy.declined import Declined


class Held:
    """What one request holds."""

    __slots__ = ("_room", "size_bytes")

    def __init__(self, room: "BodyRoom") -> None:
        """Hold nothing yet."""
        self._room = room
        self.size_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Hold so many bytes more.

        Raises:
            Declined: 503, too many are held already.

        """
        room = self._room
        if room.used_bytes + size_bytes > room.limit_bytes:
            raise Declined(
                503,
                "too_many_bytes_waiting",
                f"The bodies of other requests fill the {room.limit_bytes} bytes that "
                "server.max_held_bytes allows: send it again in a while.",
                headers={"retry-after": "1"},
            )
        room.used_bytes += size_bytes
        self.size_bytes += size_bytes

    def handed_over(self) -> "Held":
        """Return who holds it from now on."""
        other = Held(self._room)
        other.size_bytes, self.size_bytes = self.size_bytes, 0
        return other

    def give_back(self) -> None:
        """Hold nothing any more."""
        self._room.used_bytes -= self.size_bytes
        self.size_bytes = 0


class BodyRoom:
    """Counts the bytes of all requests."""

    def __init__(self, limit_bytes: int) -> None:
        """Allow so many."""
        self.limit_bytes = limit_bytes
        self.used_bytes = 0
