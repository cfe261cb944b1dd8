"""Output tokens, estimated at submission and learned from replies.

Importing this package loads no numpy: names come when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from penstock.predict.archive import StateError
    from penstock.predict.features.call import CallFeatures, kind_of
    from penstock.predict.features.text import load_tokenizer
    from penstock.predict.online.guard import GuardCounts, GuardedPredictor, TokenPredictor
    from penstock.predict.online.predictor import OnlinePredictor
    from penstock.predict.online.stats import PredictorStats, RouteFigures
    from penstock.predict.sampled_errors import SampledErrors

_HOMES = {
    "CallFeatures": "features.call",
    "GuardCounts": "online.guard",
    "GuardedPredictor": "online.guard",
    "OnlinePredictor": "online.predictor",
    "PredictorStats": "online.stats",
    "RouteFigures": "online.stats",
    "SampledErrors": "sampled_errors",
    "StateError": "archive",
    "TokenPredictor": "online.guard",
    "kind_of": "features.call",
    "load_tokenizer": "features.text",
}

__all__ = [
    "CallFeatures",
    "GuardCounts",
    "GuardedPredictor",
    "OnlinePredictor",
    "PredictorStats",
    "RouteFigures",
    "SampledErrors",
    "StateError",
    "TokenPredictor",
    "kind_of",
    "load_tokenizer",
]


def __getattr__(name: str) -> object:
    """Load a public name from its home, and keep it."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{home}"), name)
    globals()[name] = found
    return found
