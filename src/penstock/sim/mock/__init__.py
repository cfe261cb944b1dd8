"""A black-box provider on a real socket: the models of `sim/providers` behind vendors' APIs."""
