"""How much may be in flight at one upstream."""
