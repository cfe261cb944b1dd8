"""The demo's provider and sidecars: real processes on free ports, gone when it ends."""

import contextlib
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import tomlkit

from penstock.experiments.children import START_LIMIT_S, LiveError, child
from penstock.experiments.demo.workload import FIRST_TOKEN_S, SLOTS, TOKENS_PER_S
from penstock.experiments.job import Table, overlay
from penstock.experiments.live.processes import sidecar_config

COMMON: Table = {
    "admin": {"enabled": True, "port": 0},
    "anonymous": {"may_ask": ["*"]},
    "estimates": {"trust_max_tokens": True},
}
NO_PREDICTOR: Table = {"predictor": {"kind": "off"}}
"""The demo's own prompts say nothing about lengths; its callers' `max_tokens` does."""
FIFO: Table = {
    "scheduler": {
        "allocation": {"kind": "fifo"},
        "ordering": {"kind": "fifo"},
        "overload": {"kind": "always_admit"},
    },
    **NO_PREDICTOR,
}


@contextlib.contextmanager
def provider(seed: int) -> Iterator[str]:
    """Run the black-box provider; yields its URL."""
    options = (f"slots={SLOTS}", f"tokens_per_s={TOKENS_PER_S}", f"ttft_s={FIRST_TOKEN_S}")
    pairs = [part for option in options for part in ("--set", option)]
    with child("mock", "--port", "0", "--model", "slots", "--seed", str(seed), *pairs) as (url,):
        yield url


@contextlib.contextmanager
def sidecar(url: str, more: Table, folder: Path) -> Iterator[str]:
    """Run a sidecar in front of a provider; yields its URL once its predictor, if any, is in.

    Args:
        url: the provider's, without /v1.
        more: tables of penstock.toml that are laid over what every arm has.
        folder: for its configuration.

    """
    config = folder / "penstock.toml"
    tables = overlay(overlay(sidecar_config(url, {}), COMMON), more)
    config.write_text(tomlkit.dumps(tables), encoding="utf-8")
    with child("serve", "--config", str(config), addresses=2) as (own_url, admin_url):
        if more.get("predictor", {}).get("kind") == "online":
            _wait_for_predictor(admin_url)
        yield own_url


def _wait_for_predictor(admin_url: str) -> None:
    """Return once the predictor, which loads beside the traffic, gives the estimates."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{admin_url}/metrics", timeout=START_LIMIT_S) as page:  # noqa: S310 - our own child on loopback
            if b"penstock_predictor_predicted" in page.read():
                return
        time.sleep(0.05)
    raise LiveError(f"the sidecar's predictor was not there within {START_LIMIT_S:g} s")
