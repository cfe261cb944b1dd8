"""What operators see: counts, distributions, recent decisions."""
