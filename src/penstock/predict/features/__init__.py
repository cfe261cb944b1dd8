"""A call as numbers: what a prediction is made from."""
