"""Recorded traffic: the public formats, and penstock's own decision log."""
