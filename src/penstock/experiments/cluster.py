"""Make many runs over a Ray cluster."""

import socket
from collections.abc import Iterator, Sequence
from typing import Any

from penstock.errors import ConfigError
from penstock.experiments.job import SimulationJob
from penstock.experiments.pool import Batch, chunks, run_chunk

_FLYING_PER_CPU = 2
_KNOCK_S = 5.0


class RayCluster:
    """Makes the runs on a Ray cluster, whose machines have penstock installed."""

    def __init__(self, address: str) -> None:
        """Connect; `local` starts a cluster on this machine.

        Raises:
            ModuleNotFoundError: Ray is not installed (`penstock[ray]`).
            ConfigError: no cluster answers there.

        """
        import ray

        self._ray: Any = ray
        try:
            _knock(address)
            ray.init(
                address=address, ignore_reinit_error=True, log_to_driver=False, logging_level=30
            )
        except (OSError, RuntimeError, ValueError) as error:
            raise ConfigError(f"--ray {address}: no cluster answers there: {error}") from error
        self._task = ray.remote(run_chunk)

    def run(self, jobs: Sequence[SimulationJob]) -> Iterator[Batch]:
        """Yield batches as the cluster finishes them."""
        limit = _FLYING_PER_CPU * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        todo = iter(chunks(jobs))
        flying: list[Any] = []
        while True:
            while len(flying) < limit and (chunk := next(todo, None)) is not None:
                flying.append(self._task.remote(chunk))
            if not flying:
                return
            done, flying = self._ray.wait(flying, num_returns=1)
            for reference in done:
                yield self._ray.get(reference)

    def close(self) -> None:
        """Disconnect; a cluster that was started here ends."""
        self._ray.shutdown()


def _knock(address: str) -> None:
    """Try the address first: by itself, Ray tries for minutes and then ends the whole process."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=_KNOCK_S).close()
