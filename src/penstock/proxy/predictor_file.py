"""What the predictor of the sidecar starts from: its prior, and the state of the last run."""

import itertools
import os
from pathlib import Path
from typing import TYPE_CHECKING

from penstock.errors import PenstockError
from penstock.private_file import open_private
from penstock.proxy.config.models import NO_PRIOR, SHIPPED_PRIOR

if TYPE_CHECKING:
    from penstock.predict import OnlinePredictor


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
    from penstock.predict.online.state import OtherPriorError

    why = "other-prior" if isinstance(problem, OtherPriorError) else "damaged"
    kept = path.with_name(f"{path.name}.{why}")
    numbers = itertools.count(2)
    while kept.exists():
        kept = path.with_name(f"{path.name}.{why}-{next(numbers)}")
    path.rename(kept)
    return kept
