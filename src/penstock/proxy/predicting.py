"""Brings the learning predictor in beside a running sidecar: numpy is too slow to wait for."""

import itertools
import logging
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.proxy.config.models import NO_PRIOR, SHIPPED_PRIOR, PredictorTable
from penstock.proxy.estimating import Estimator
from penstock.runtime.out_file import likely_cause, try_file

if TYPE_CHECKING:
    from penstock.predict import Predictor
    from penstock.predict.prior import LogTokens

logger = logging.getLogger("penstock.proxy")


class Attached:
    """A predictor on its way or at work; close it at the end to keep what it learnt."""

    def __init__(self, estimator: Estimator, table: PredictorTable) -> None:
        """Load in a thread of its own; until then the table's estimates stand."""
        self._estimator = estimator
        self._prior = table.prior
        self._path = Path(table.state_path) if table.state_path else None
        self._predictor: Predictor | None = None
        self._thread: threading.Thread | None = None
        if table.kind == "online":
            self._thread = threading.Thread(target=self._load, name="penstock-load", daemon=True)
            self._thread.start()

    def _load(self) -> None:
        try:
            from penstock.predict import GuardedPredictor
        except ModuleNotFoundError as missing:
            logger.error(
                "predictor.kind = 'online' needs the package %s, which is not installed (pip "
                "install 'penstock[predict]'); the estimates of the table stand",
                missing.name,
            )
            return
        if self._path is not None:
            try:
                try_file(self._path)
            except OSError as error:
                logger.error(
                    "predictor: state_path %s cannot be written (%s: %s): what is learnt will be "
                    "lost at the end",
                    self._path,
                    error.strerror,
                    likely_cause(error),
                )
        predictor = self._restored() or self._fresh()
        self._predictor = predictor
        self._estimator.predictor = GuardedPredictor(predictor)

    def _restored(self) -> "Predictor | None":
        """Return the predictor of the last run, or None if there is none to be had."""
        from penstock.predict import Predictor

        if self._path is None or not self._path.is_file():
            return None
        try:
            prior = None if self._prior in (SHIPPED_PRIOR, NO_PRIOR) else _read_prior(self._prior)
            return Predictor.load(self._path, prior=prior)
        except (OSError, PenstockError) as error:
            self._set_aside(self._path, error)
            return None

    def _set_aside(self, path: Path, problem: Exception) -> None:
        """Keep a state that cannot be used from being written over."""
        kept = _free_name(path)
        try:
            path.rename(kept)
        except OSError as error:
            self._path = None
            logger.error(
                "predictor: state_path cannot be used (%s), nor moved aside (%s); starting "
                "without what it had learnt, and nothing will be kept at the end",
                problem,
                error,
            )
            return
        logger.warning(
            "predictor: state_path cannot be used (%s); it is kept as %s; starting without what "
            "it had learnt",
            problem,
            kept,
        )

    def _fresh(self) -> "Predictor":
        from penstock.predict import Predictor

        if self._prior == NO_PRIOR:
            return Predictor.cold()
        if self._prior == SHIPPED_PRIOR:
            return Predictor.shipped()
        try:
            return Predictor.starting_from(_read_prior(self._prior))
        except (OSError, PenstockError) as error:
            logger.error(
                "predictor: the prior %s cannot be used (%s); starting from the shipped one",
                self._prior,
                error,
            )
            return Predictor.shipped()

    def close(self) -> None:
        """Save what was learnt, if the configuration says where."""
        if self._thread is None:
            return
        self._thread.join()
        guarded, self._estimator.predictor = self._estimator.predictor, None
        if guarded is None:
            return
        guarded.flush()
        guarded.close()
        if self._path is not None and self._predictor is not None:
            try:
                self._predictor.save(self._path)
            except OSError as error:
                logger.error(
                    "predictor: state_path %s cannot be written (%s): what was learnt is lost",
                    self._path,
                    error,
                )


def _free_name(path: Path) -> Path:
    numbers = itertools.count(2)
    kept = path.with_name(f"{path.name}.damaged")
    while kept.exists():
        kept = path.with_name(f"{path.name}.damaged-{next(numbers)}")
    return kept


def _read_prior(name: str) -> "LogTokens":
    from penstock.predict.prior_file import read_prior

    return read_prior(Path(name))


def attach_predictor(estimator: Estimator, table: PredictorTable) -> Attached:
    """Begin loading the predictor that the configuration asks for, if it asks for one."""
    return Attached(estimator, table)
