"""The sidecar's configuration: TOML in, checked whole, plain settings out."""

from penstock.proxy.config.load import Loaded, load, loads

__all__ = ["Loaded", "load", "loads"]
