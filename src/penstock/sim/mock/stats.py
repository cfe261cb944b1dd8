"""What the mock has seen, for tests: `GET /mock/stats`."""

from dataclasses import asdict, dataclass, field
from typing import Any


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
