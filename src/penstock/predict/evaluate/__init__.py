"""How good estimates were."""
