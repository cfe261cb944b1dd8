"""One call on its way through the mock: counted, named, and broken where that is asked for.

What the mock has seen is told to tests by `GET /mock/stats`.
"""

import socket
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from penstock.asgi import Scope, Send


@dataclass(slots=True)
class MockStats:
    """Counters since the start.

    Attributes:
        requests: by path, answered or not. in_flight: calls now between request and last byte.
        finished, cancelled: calls whose reply was sent whole, and whose client left before.
        faults: calls broken on demand or by the provider. refused: by status.
        output_tokens: of the replies sent whole.

    """

    requests: dict[str, int] = field(default_factory=dict)
    in_flight: int = 0
    peak_in_flight: int = 0
    finished: int = 0
    cancelled: int = 0
    faults: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    bytes_in: int = 0
    bytes_out: int = 0
    output_tokens: int = 0

    def enter(self) -> None:
        """Count a call in."""
        self.in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.in_flight)

    def leave(self) -> None:
        """Count a call out."""
        self.in_flight -= 1

    def refuse(self, status: int) -> None:
        """Count an answer that is an error."""
        self.refused[str(status)] = self.refused.get(str(status), 0) + 1

    def as_dict(self) -> dict[str, Any]:
        """Return the counters as a JSON object."""
        return asdict(self)


STATS_PATH = "/mock/stats"
"""Asking for the counters changes none of them but the count of its own path."""

_KEY = "penstock.passage"


class Passage:
    """What happens to every call, whatever its path.

    Attributes:
        request_id: for the headers by which the vendors' support finds a call.
        inside: whether it counts as in flight.

    """

    def __init__(self, scope: Scope, send: Send, stats: MockStats, number: int) -> None:
        """Count the call in."""
        self.request_id = f"req_mock{number:08d}"
        path: str = scope["path"]
        self.inside = path != STATS_PATH
        self._scope = scope
        self._send = send
        self._stats = stats
        self._at_end: list[Callable[[], object]] = []
        scope[_KEY] = self
        stats.requests[path] = stats.requests.get(path, 0) + 1
        if self.inside:
            stats.enter()

    @staticmethod
    def of(scope: Scope) -> "Passage":
        """Return the passage that a call's scope belongs to."""
        passage: Passage = scope[_KEY]
        return passage

    async def send(self, message: dict[str, Any]) -> None:
        """Send on: the head with the call's id, the body counted."""
        if message["type"] == "http.response.start":
            named = self.request_id.encode()
            # Both vendors' names, so that either SDK finds its own.
            ids = [(b"x-request-id", named), (b"request-id", named)]
            message["headers"] = [*message["headers"], *ids]
        else:
            self._stats.bytes_out += len(message.get("body", b""))
            if not message.get("more_body", False):
                self.leave()
        await self._send(message)

    def leave(self) -> None:
        """Count the call out; the first time counts.

        Done before the last byte is sent: a client that has its answer may send its next call
        before this one's handler has returned, and two would be counted where one was.
        """
        if self.inside:
            self.inside = False
            self._stats.leave()

    def at_end(self, free: Callable[[], object]) -> None:
        """Have something freed when the call is over, however it ends."""
        self._at_end.append(free)

    def end(self) -> None:
        """Free what the call held, and count it out."""
        for free in self._at_end:
            free()
        self.leave()

    def reset(self) -> None:
        """Break the TCP connection with a RST."""
        transport = self._scope["extensions"]["penstock.transport"]
        if transport is None:  # it is broken already
            return
        sock = transport.get_extra_info("socket")
        if sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        transport.abort()
