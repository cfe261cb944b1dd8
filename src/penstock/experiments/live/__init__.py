"""A scenario through the real sidecar over sockets, to be held against its simulation."""
