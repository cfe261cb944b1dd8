"""Output tokens, estimated at submission and learned from every reply."""

from penstock.predict.archive import StateError
from penstock.predict.features.call import CallFeatures, CallKind
from penstock.predict.features.prompt_tokens import load_tokenizer
from penstock.predict.online.guard import (
    GuardCounts,
    GuardedPredictor,
    TokenPredictor,
)
from penstock.predict.online.predictor import OnlinePredictor
from penstock.predict.online.stats import PredictorStats, RouteFigures
from penstock.predict.sampled_errors import SampledErrors

__all__ = [
    "CallFeatures",
    "CallKind",
    "GuardCounts",
    "GuardedPredictor",
    "OnlinePredictor",
    "PredictorStats",
    "RouteFigures",
    "SampledErrors",
    "StateError",
    "TokenPredictor",
    "load_tokenizer",
]
