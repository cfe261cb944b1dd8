"""Which request of a class goes first."""
