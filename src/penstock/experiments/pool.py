"""Make many runs at once: over processes here, or over a Ray cluster."""

import signal
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Protocol

from penstock.experiments.job import SimulationJob
from penstock.experiments.measure import run_job
from penstock.experiments.outcome import RunOutcome

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
