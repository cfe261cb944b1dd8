"""Brings the learning predictor in beside a running sidecar: numpy is too slow to wait for.

It starts from its prior and the state of the last run, which is written now and then.
"""

import asyncio
import ctypes
import itertools
import logging
import os
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.private_file import (
    FileInUse,
    NotPrivate,
    likely_cause,
    lock_file,
    make_private_folder,
    open_private,
    try_file,
)
from penstock.proxy.config.models import NO_PRIOR, SHIPPED_PRIOR, PredictorTable
from penstock.runtime.prediction import LearnedPredictor

if TYPE_CHECKING:
    from penstock.predict import GuardedPredictor, OnlinePredictor
    from penstock.predict.online.predictor import ModelCopy

logger = logging.getLogger("penstock.proxy")


def start_of(prior: str) -> "OnlinePredictor":
    """Return a predictor that knows what the configuration says, and nothing of the last run.

    Raises:
        Exception: the prior cannot be used; of what kind, the damage to its file decides.

    """
    from penstock.predict import OnlinePredictor
    from penstock.predict.prior.file import read_prior

    if prior == NO_PRIOR:
        return OnlinePredictor.cold()
    if prior == SHIPPED_PRIOR:
        return OnlinePredictor.shipped()
    os.close(open_private(prior, os.O_RDONLY))  # whoever may write it may bend what is predicted
    return OnlinePredictor.starting_from(read_prior(Path(prior)))


def told(error: Exception) -> str:
    """Return an error's text, with its type where it was written for somebody else's readers."""
    ours = isinstance(error, PenstockError | OSError)
    return str(error) if ours else f"{type(error).__name__}: {error}"


def set_aside(path: Path, problem: Exception) -> Path:
    """Rename a state that cannot be used, to a name that tells why; return the new name.

    Raises:
        OSError: it cannot be renamed.

    """
    from penstock.predict.online.predictor import OtherPriorError

    why = "other-prior" if isinstance(problem, OtherPriorError) else "damaged"
    kept = path.with_name(f"{path.name}.{why}")
    numbers = itertools.count(2)
    while kept.exists():
        kept = path.with_name(f"{path.name}.{why}-{next(numbers)}")
    path.rename(kept)
    return kept


class Keeper:
    """Writes one predictor's state to one file, one write after the other."""

    def __init__(self, predictor: "GuardedPredictor", path: Path) -> None:
        """Keep what it learns from now on."""
        self._predictor = predictor
        self._path = path
        self._kept_learned = 0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="penstock-save")

    async def save(self) -> None:
        """Write what was learned, if anything was since the last time.

        The copy is taken here, in a few milliseconds, and the file, which takes 0.2 s with 100
        routes, is made in a thread.
        """
        learned = self._predictor.counts.learned
        if learned == self._kept_learned:
            return
        copy = self._copy()
        if copy is None:
            return
        loop = asyncio.get_running_loop()
        if await loop.run_in_executor(self._writer, self._write, copy):
            self._kept_learned = learned

    def close(self) -> None:
        """Wait for a write under way, and write the last state."""
        self._writer.shutdown()
        copy = self._copy()
        if copy is None or not self._write(copy):
            logger.error("predictor: what was learnt since the last write is lost")

    def _copy(self) -> "ModelCopy | None":
        try:
            return self._predictor.snapshot()
        except Exception as error:  # noqa: BLE001 - the traffic goes on, whatever it is
            logger.error("predictor: what was learnt cannot be copied (%s)", told(error))
            return None

    def _write(self, copy: "ModelCopy") -> bool:
        try:
            copy.write(self._path)
        except Exception as error:  # noqa: BLE001 - the traffic goes on, whatever it is
            logger.error("predictor: state_path %s cannot be written (%s)", self._path, told(error))
            return False
        return True


class Attached:
    """A predictor on its way or at work; close it at the end to keep what it learnt."""

    def __init__(self, learned: LearnedPredictor, table: PredictorTable) -> None:
        """Load in a thread of its own; until then the table's estimates stand."""
        self._learned = learned
        self._prior = table.prior
        self._count_prompts = table.count_prompts
        self._path = Path(table.state_path) if table.state_path else None
        self._save_every_s = table.save_every_s
        self._keeper: Keeper | None = None
        self._lock = -1
        self._thread: threading.Thread | None = None
        if table.kind == "online":
            self._thread = threading.Thread(target=self._load, name="penstock-load", daemon=True)
            self._thread.start()

    async def keep_saving(self) -> None:
        """Save what was learnt now and then, for as long as this runs: a crash loses little."""
        while True:
            await asyncio.sleep(self._save_every_s)
            if self._keeper is not None:
                await self._keeper.save()

    def close(self) -> None:
        """Save what was learnt, if the configuration says where."""
        if self._thread is None:
            return
        self._thread.join()
        guarded, self._learned.guard = self._learned.guard, None
        if guarded is None:
            return
        guarded.flush()
        guarded.close()
        if self._keeper is not None:
            self._keeper.close()
        if self._lock >= 0:
            os.close(self._lock)

    def _load(self) -> None:
        try:
            from penstock.predict import GuardedPredictor, load_tokenizer

            if self._count_prompts:
                load_tokenizer()
            predictor = GuardedPredictor(self._predictor())
            _take_room()
            _give_back()
            if self._path is not None:
                self._keeper = Keeper(predictor, self._path)
            self._learned.guard = predictor
        except ModuleNotFoundError as missing:
            logger.error(
                "predictor.kind = 'online' needs the package %s, which is not installed (pip "
                "install 'penstock[predict]'); the estimates of the table stand",
                missing.name,
            )
        except Exception as error:  # noqa: BLE001 - nobody else would hear of it in this thread
            logger.error(
                "predictor: cannot start (%s); the estimates of the table stand", told(error)
            )

    def _predictor(self) -> "OnlinePredictor":
        """Return the predictor of the last run, or else one that starts as configured."""
        start = self._start()
        if self._path is None or not self._is_ours(self._path):
            return start
        try:
            try_file(self._path)
        except OSError as error:
            logger.error(
                "predictor: state_path %s cannot be written (%s: %s): what is learnt will be lost "
                "at the end",
                self._path,
                error.strerror,
                likely_cause(error),
            )
        if not self._path.is_file():
            return start
        try:
            os.close(open_private(self._path, os.O_RDONLY))  # whoever may write it may bend it
            return start.restored(self._path)
        except Exception as error:  # noqa: BLE001 - damage can look like anything
            self._set_aside(self._path, error)
            return start

    def _is_ours(self, path: Path) -> bool:
        """Take the state for this process; say so and leave it alone if another one has it."""
        try:
            make_private_folder(path.parent)
            self._lock = open_private(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT)
            lock_file(self._lock, path)
        except (FileInUse, NotPrivate) as error:
            self._path = None
            logger.error("predictor: state_path: %s; nothing is read from it or kept", error)
            return False
        except OSError:  # said below, where the file itself is tried
            return True
        return True

    def _start(self) -> "OnlinePredictor":
        from penstock.predict import OnlinePredictor

        try:
            return start_of(self._prior)
        except Exception as error:  # noqa: BLE001 - damage can look like anything
            logger.error(
                "predictor: the prior %s cannot be used (%s); starting from the shipped one",
                self._prior,
                told(error),
            )
            return OnlinePredictor.shipped()

    def _set_aside(self, path: Path, problem: Exception) -> None:
        """Keep a state that cannot be used from being written over."""
        try:
            kept = set_aside(path, problem)
        except OSError as error:
            self._path = None
            logger.error(
                "predictor: state_path cannot be used (%s), nor moved aside (%s); starting "
                "without what it had learnt, and nothing will be kept at the end",
                told(problem),
                error,
            )
            return
        logger.warning(
            "predictor: state_path cannot be used (%s); it is kept as %s; starting without what "
            "it had learnt, with predictor.prior = %r",
            told(problem),
            kept,
            self._prior,
        )


def _give_back() -> None:
    """Let glibc return what the load took and let go: 2 MB of 91."""
    if sys.platform == "linux":
        libc = ctypes.CDLL(None)
        if hasattr(libc, "malloc_trim"):
            libc.malloc_trim(0)


def _take_room() -> None:
    """Let OpenBLAS have its buffer now: it ends the process where it gets none at its first use."""
    import numpy as np

    square = np.ones((256, 256), np.float32)
    square @ square
