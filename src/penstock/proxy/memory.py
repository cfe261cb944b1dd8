"""How many bytes of bodies the sidecar may hold where its memory is limited."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

logger = logging.getLogger("penstock.proxy")

CGROUP = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""What a container may have, as it sees itself: of version 2, and of version 1."""
SHARE = 3
"""Of what is left: a body that is read takes as much again and more, and so does the predictor."""


def body_room(wanted_bytes: int, cgroup: Iterable[Path] = CGROUP) -> int:
    """Return how many bytes of bodies may be held: at most `wanted_bytes`.

    In a container with a limit, beyond which the system ends the process, it is a third of what
    the process does not have yet.
    """
    least_bytes = min((left // SHARE for left in _left(cgroup)), default=wanted_bytes)
    if least_bytes >= wanted_bytes:
        return wanted_bytes
    logger.warning(
        "server.max_held_bytes = %d: %d are held at most, a third of what this container's memory "
        "limit leaves",
        wanted_bytes,
        least_bytes,
    )
    return least_bytes


def _left(cgroup: Iterable[Path]) -> Iterator[int]:
    """Yield how many bytes each limit leaves; nothing where none is known."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (ModuleNotFoundError, OSError):
        return
    for path in cgroup:
        try:
            yield max(0, int(path.read_text()) - pages * resource.getpagesize())
        except (OSError, ValueError):  # "max" is no limit
            continue
