"""How many bytes of bodies the sidecar may hold where its memory is limited."""

import logging
from collections.abc import Iterable, Iterator
from pathlib import Path

logger = logging.getLogger("penstock.proxy")

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
SHARE = 3
"""Of what is left: a body that is read takes as much again and more, and so does the predictor."""


def limit_files(own: Path = OWN_CGROUPS, mounted: Path = CGROUPS) -> Iterator[Path]:
    """Yield the files that may limit this process: of its control group and of those above it.

    A service's group is one below the root; to a container its own looks like the root.
    """
    try:
        lines = own.read_text().splitlines()
    except OSError:  # no Linux
        return
    for line in lines:
        _, controllers, group = line.split(":", 2)
        if not controllers:
            root, name = mounted, "memory.max"
        elif "memory" in controllers.split(","):  # version 1
            root, name = mounted / "memory", "memory.limit_in_bytes"
        else:
            continue
        place = root / group.lstrip("/")
        yield from (each / name for each in (place, *place.parents) if each.is_relative_to(root))


def body_room(wanted_bytes: int, limits: Iterable[Path] | None = None) -> int:
    """Return how many bytes of bodies may be held: at most `wanted_bytes`.

    In a container or a service with a limit, beyond which the system ends the process, it is a
    third of what the process does not have yet.
    """
    left = _left(limit_files() if limits is None else limits)
    least_bytes = min((each // SHARE for each in left), default=wanted_bytes)
    if least_bytes >= wanted_bytes:
        return wanted_bytes
    logger.warning(
        "server.max_held_bytes = %d: %d are held at most, a third of what the memory limit of "
        "this container or service leaves",
        wanted_bytes,
        least_bytes,
    )
    return least_bytes


def _left(limits: Iterable[Path]) -> Iterator[int]:
    """Yield how many bytes each limit leaves; nothing where none is known."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (ModuleNotFoundError, OSError):
        return
    for path in limits:
        try:
            yield max(0, int(path.read_text()) - pages * resource.getpagesize())
        except (OSError, ValueError):  # "max" is no limit
            continue
