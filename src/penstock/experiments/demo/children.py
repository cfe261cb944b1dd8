"""The demo's provider and sidecars: real processes on free ports, gone when it ends."""

import contextlib
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from penstock.errors import PenstockError
from penstock.experiments.demo.workload import FIRST_TOKEN_S, SLOTS, TOKENS_PER_S

START_LIMIT_S = 20.0
END_LIMIT_S = 5.0
_URL = re.compile(rb"http://127\.0\.0\.1:\d+")

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


class DemoError(PenstockError):
    """The demo could not go on; the text says what failed."""


@contextlib.contextmanager
def provider(seed: int) -> Iterator[str]:
    """Run the black-box provider; yields its URL."""
    options = (f"slots={SLOTS}", f"tokens_per_s={TOKENS_PER_S}", f"ttft_s={FIRST_TOKEN_S}")
    pairs = [part for option in options for part in ("--set", option)]
    with _child("mock", "--port", "0", "--model", "slots", "--seed", str(seed), *pairs) as (url,):
        yield url


@contextlib.contextmanager
def sidecar(url: str, more: str, folder: Path) -> Iterator[str]:
    """Run a sidecar in front of a provider; yields its URL once its predictor, if any, is in."""
    config = folder / "penstock.toml"
    config.write_text(CONFIG.format(url=url) + more, encoding="utf-8")
    with _child("serve", "--config", str(config), addresses=2) as (own_url, admin_url):
        if 'kind = "online"' in more:
            _wait_for_predictor(admin_url)
        yield own_url


@contextlib.contextmanager
def _child(command: str, *arguments: str, addresses: int = 1) -> Iterator[list[str]]:
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "penstock.cli.main", command, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
            # Ctrl-C is for us: we end the children in order.
            start_new_session=True,
        )
        try:
            yield _urls_of(process, command, said, addresses)
        finally:
            process.terminate()
            try:
                process.wait(END_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _urls_of(
    process: "subprocess.Popen[bytes]", command: str, said: IO[bytes], addresses: int
) -> list[str]:
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        said.seek(0)
        text = said.read()
        # Whole lines only: a port must not be read before its last digit is there.
        found = _URL.findall(text[: text.rfind(b"\n") + 1])
        if len(found) >= addresses:
            return [url.decode() for url in found[:addresses]]
        if process.poll() is not None:
            raise DemoError(f"penstock {command} ended at once: {text.decode(errors='replace')}")
        time.sleep(0.02)
    raise DemoError(f"penstock {command} said no address within {START_LIMIT_S:g} s")


def _wait_for_predictor(admin_url: str) -> None:
    """Return once the predictor, which loads beside the traffic, gives the estimates."""
    until = time.monotonic() + START_LIMIT_S
    while time.monotonic() < until:
        with urllib.request.urlopen(f"{admin_url}/metrics", timeout=START_LIMIT_S) as page:  # noqa: S310 - our own child on loopback
            if b"penstock_predictor_predicted" in page.read():
                return
        time.sleep(0.05)
    raise DemoError(f"the sidecar's predictor was not there within {START_LIMIT_S:g} s")
