"""The algorithms behind each decision: pure, one a file, listed in `registry`."""
