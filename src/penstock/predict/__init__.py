"""Output tokens, estimated at submission and learned from every reply."""

from penstock.predict.call import CallFeatures
from penstock.predict.guard import GuardCounts, GuardedPredictor, TokenPredictor, cap_estimate
from penstock.predict.packed_file import StateError
from penstock.predict.predictor import Predictor
from penstock.predict.sampled_errors import SampledErrors
from penstock.predict.stats import PredictorStats, RouteFigures

__all__ = [
    "CallFeatures",
    "GuardCounts",
    "GuardedPredictor",
    "Predictor",
    "PredictorStats",
    "RouteFigures",
    "SampledErrors",
    "StateError",
    "TokenPredictor",
    "cap_estimate",
]
