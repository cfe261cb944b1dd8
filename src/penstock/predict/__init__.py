"""Output tokens, estimated at submission and learned from every reply."""

from penstock.predict.call import CallFeatures
from penstock.predict.guard import GuardCounts, GuardedPredictor, TokenPredictor, cap_estimate
from penstock.predict.predictor import Predictor
from penstock.predict.sampled_errors import SampledErrors

__all__ = [
    "CallFeatures",
    "GuardCounts",
    "GuardedPredictor",
    "Predictor",
    "SampledErrors",
    "TokenPredictor",
    "cap_estimate",
]
