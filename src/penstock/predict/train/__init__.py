"""Fits priors and predictors to recorded replies."""
