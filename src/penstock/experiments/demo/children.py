"""The demo's provider and sidecars: real processes on free ports, gone when it ends."""

import contextlib
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from penstock.experiments.children import START_LIMIT_S, LiveError, child
from penstock.experiments.demo.workload import FIRST_TOKEN_S, SLOTS, TOKENS_PER_S

CONFIG = """\
[server]
port = 0
[admin]
port = 0
[anonymous]
may_ask = ["*"]
shortest_deadline_s = 0.001
may_state_tokens = true
[estimates]
trust_max_tokens = true
[[upstreams]]
name = "provider"
base_url = "{url}/v1"
auth = "none"
"""
FIFO = """\
[scheduler.allocation]
kind = "fifo"
[scheduler.ordering]
kind = "fifo"
[scheduler.overload]
kind = "always_admit"
[predictor]
kind = "off"
"""
TRUSTING = """\
[predictor]
kind = "off"
"""
"""The demo's own prompts say nothing about lengths; its callers' `max_tokens` does."""
PREDICTING = """\
[predictor]
kind = "online"
prior = "{prior}"
"""


@contextlib.contextmanager
def provider(seed: int) -> Iterator[str]:
    """Run the black-box provider; yields its URL."""
    options = (f"slots={SLOTS}", f"tokens_per_s={TOKENS_PER_S}", f"ttft_s={FIRST_TOKEN_S}")
    pairs = [part for option in options for part in ("--set", option)]
    with child("mock", "--port", "0", "--model", "slots", "--seed", str(seed), *pairs) as (url,):
        yield url


@contextlib.contextmanager
def sidecar(url: str, more: str, folder: Path) -> Iterator[str]:
    """Run a sidecar in front of a provider; yields its URL once its predictor, if any, is in."""
    config = folder / "penstock.toml"
    config.write_text(CONFIG.format(url=url) + more, encoding="utf-8")
    with child("serve", "--config", str(config), addresses=2) as (own_url, admin_url):
        if 'kind = "online"' in more:
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
