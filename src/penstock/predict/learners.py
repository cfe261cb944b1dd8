"""Which last stage a trained prior gets: numpy's own trees, or LightGBM where installed."""

from __future__ import annotations

from importlib.util import find_spec

from penstock.errors import ConfigError
from penstock.predict.training import Grow, grow_trees

LEARNERS = ("auto", "numpy", "boosted")


def last_stage(name: str) -> Grow:
    """Return the fitting function for a learner.

    Raises:
        ConfigError: no such learner, or LightGBM is wanted and not installed.

    """
    if name not in LEARNERS:
        raise ConfigError(f"learner={name!r} is none of {', '.join(LEARNERS)}")
    installed = find_spec("lightgbm") is not None
    if name == "numpy" or (name == "auto" and not installed):
        return grow_trees
    if not installed:
        raise ConfigError("learner='boosted' needs LightGBM; install penstock[predict-boosted]")
    from penstock.predict.boosted import grow_boosted

    return grow_boosted
