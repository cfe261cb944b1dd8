"""Make many runs at once: over processes here, or over a Ray cluster."""

import signal
import socket
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any, Protocol

from penstock.errors import ConfigError
from penstock.experiments.measure import RunOutcome, SimulationJob, run_job

CHUNK = 8
"""Jobs in one message: a run takes about 40 ms, a message about one."""

Batch = list[tuple[SimulationJob, RunOutcome]]


class Workers(Protocol):
    """Something that makes runs; the order of the results is nobody's promise."""

    def run(self, jobs: Sequence[SimulationJob]) -> Iterator[Batch]:
        """Yield finished runs in batches, as they come."""
        ...

    def close(self) -> None:
        """Stop; what has not begun is dropped."""
        ...


def chunks(jobs: Sequence[SimulationJob]) -> Iterable[Sequence[SimulationJob]]:
    """Return the jobs in groups of at most `CHUNK`."""
    return (jobs[start : start + CHUNK] for start in range(0, len(jobs), CHUNK))


def run_chunk(jobs: Sequence[SimulationJob]) -> Batch:
    """Make some runs, one after the other."""
    return [(job, run_job(job)) for job in jobs]


class Here:
    """Makes the runs in this process."""

    def run(self, jobs: Sequence[SimulationJob]) -> Iterator[Batch]:
        """Yield each run as soon as it is made."""
        for job in jobs:
            yield run_chunk([job])

    def close(self) -> None:
        """Nothing runs any more."""


class Processes:
    """Makes the runs in several processes on this machine."""

    def __init__(self, count: int) -> None:
        """Prepare `count` processes; they start with the first runs."""
        # spawn: the same on every system, and no half-copied locks of the parent's threads.
        self._pool = ProcessPoolExecutor(
            count, mp_context=get_context("spawn"), initializer=_leave_ctrl_c_to_the_parent
        )

    def run(self, jobs: Sequence[SimulationJob]) -> Iterator[Batch]:
        """Yield batches as processes finish them."""
        with _ctrl_c_blocked():  # processes start as jobs are submitted, and inherit the mask
            futures = [self._pool.submit(run_chunk, each) for each in chunks(jobs)]
        for future in as_completed(futures):
            yield future.result()

    def close(self) -> None:
        """Drop what has not begun and wait for the rest."""
        self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _ctrl_c_blocked() -> Iterator[None]:
    """Hold SIGINT back, where the system can: it comes at the end of the block."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_ctrl_c_to_the_parent() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)


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
