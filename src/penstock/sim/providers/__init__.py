"""Models of black-box providers: one file and one parameter set each, one registry."""
