"""What watching costs the sidecar: dashboard, OpenTelemetry and shadow, each alone and together.

    python benchmarks/bench_observe.py [--requests 12000] [--window 16] [--json result.json]

One sidecar with nothing on (no admin port), and one for each way to watch it: the dashboard open in
one browser; traces and metrics for a collector; the decision log, and with it the shadow, which
reads it; all at once. All stand before the same upstream and are sent short slices in turn. A
slice's processor time a request, exports included, is set against that of the slice with nothing on
in the same turn, and the median of these ratios counts: what else the machine does changes both.
Every call is sampled, and joins its caller's trace. The window is fixed, and half of the lanes
wait: each sidecar would find another window by luck, and who waits is predicted and put in order,
which takes longer than to let a call through.

The shadow works in a process of its own, whose time a look is measured apart, on the log that the
run has left, and spread over the requests of `shadow.every_s` at 500 a second.
"""

import argparse
import asyncio
import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import urlopen

import bench_proxy as proxy

SLICES = 40
LIMIT = 1.3
"""Asked for everything together."""
RATE_PER_S, EVERY_S, LOOKED_AT = 500, 900, 5000
"""Requests a second that the dashboard is judged at; the shadow's defaults."""
ADMIN_OFF = "enabled = false"
SHADOW = """
[shadow]
enabled = true
[shadow.policies.wider.scheduler.capacity]
kind = "fixed"
window = 64
"""
TRACED = b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n"


class Collector(asyncio.Protocol):
    """Says yes to whatever it is sent."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        head, mark, body = self.buffer.partition(b"\r\n\r\n")
        if mark and len(body) >= int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0]):
            self.buffer = b""
            self.transport.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")


async def collect(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Collector, "127.0.0.1", port)
    await server.serve_forever()


@dataclass(frozen=True)
class Way:
    """What is on."""

    dashboard: bool = False
    otel: bool = False
    log: bool = False
    shadow: bool = False


WAYS = {
    "nothing": Way(),
    "dashboard": Way(dashboard=True),
    "OpenTelemetry": Way(otel=True),
    "decision log": Way(log=True),
    "log and shadow": Way(log=True, shadow=True),
    "all": Way(dashboard=True, otel=True, log=True, shadow=True),
}


@contextlib.contextmanager
def sidecar(
    folder: Path, upstream: int, collector: int, window: int, way: Way
) -> Iterator[tuple[int, int]]:
    """Run one; yield its port and its process."""
    port, admin = proxy.free_port(), proxy.free_port()
    config = folder / f"{port}.toml"
    log = folder / f"{port}.jsonl"
    config.write_text(
        f"""
[server]
port = {port}
[admin]
port = {admin}
{"" if way.dashboard else ADMIN_OFF}
[otel]
enabled = {"true" if way.otel else "false"}
[log]
{f'decisions_path = "{log}"' if way.log else ""}
{SHADOW if way.shadow else ""}
[scheduler]
capacity = {{ kind = "fixed", window = {window} }}
[[upstreams]]
name = "bench"
base_url = "http://127.0.0.1:{upstream}/v1"
auth = "none"
"""
    )
    env = {**os.environ, "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector}"}
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock.cli.main", "serve", "-c", str(config)],
        stderr=subprocess.DEVNULL,
        env=env,
        preexec_fn=lambda: os.sched_setaffinity(0, {proxy.PROXY_CORE}),
    )
    try:
        proxy._first_reply_s(port, time.perf_counter())  # noqa: SLF001
        if way.dashboard:
            threading.Thread(target=_look, args=(admin,), daemon=True).start()
        yield port, process.pid
    finally:
        process.terminate()
        process.wait(20)


def _look(admin: int) -> None:
    """Keep a page open, as a browser does."""
    with (
        contextlib.suppress(OSError),
        urlopen(f"http://127.0.0.1:{admin}/dashboard/events?view=now") as page,
    ):
        while page.read1(65536):
            pass


def measure(
    folder: Path, upstream: int, collector: int, window: int, requests: int
) -> dict[str, list[float]]:
    """Return the processor's microseconds a request of each slice, by the way to watch."""
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    each = requests // SLICES
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(sidecar(folder, upstream, collector, window, way))
            for name, way in WAYS.items()
        }
        for port, _ in running.values():
            proxy.load(port, requests=500)
        for turn in range(SLICES):
            order = list(running.items())
            for name, (port, pid) in order if turn % 2 else reversed(order):
                before = proxy.cpu_s([pid])
                proxy.load(port, requests=each)
                found[name].append(1e6 * (proxy.cpu_s([pid]) - before) / each)
    return found


def look_s(log: Path) -> float:
    """Return the processor's seconds of one look of the shadow at the log's end."""
    policies = tomllib.loads(SHADOW)["shadow"]["policies"]
    bounds = {"most_bytes": 3_000 * LOOKED_AT, "most_calls": LOOKED_AT}
    question = {"log": str(log), "policies": policies, **bounds}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    answered = subprocess.run(
        [sys.executable, "-m", "penstock.twin.shadow"],
        input=json.dumps(question).encode(),
        capture_output=True,
        check=True,
    )
    answer = json.loads(answered.stdout)
    print(f"the shadow looked at {answer.get('calls', answer)} calls")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def report(found: dict[str, list[float]], shadow_us: float) -> dict[str, dict[str, float]]:
    """Print and return medians."""
    print(f"load of the machine {os.getloadavg()[0]:.1f}; a look of the shadow {shadow_us:.0f} us")
    print(f"{'watched by':16}{'CPU us a request':>18}{'ratio':>8}{'  middle half':>14}")
    told = {}
    for name, spent in found.items():
        more = shadow_us if WAYS[name].shadow else 0.0
        pairs = zip(spent, found["nothing"], strict=True)
        low, middle, high = statistics.quantiles([(us + more) / base for us, base in pairs], n=4)
        cpu_us = statistics.median(spent) + more
        told[name] = {"cpu_us": cpu_us, "ratio": middle, "low": low, "high": high}
        print(f"{name:16}{cpu_us:18.1f}{middle:8.2f}{low:8.2f}-{high:.2f}")
    return told


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=12_000)
    parser.add_argument("--window", type=int, default=16, help="64: nobody waits")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--collector", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream or options.collector:
        serving = options.upstream and proxy.run_upstream(options.upstream)
        asyncio.run(serving or collect(options.collector))
        return 0
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[1:]))
    plain = proxy._request  # noqa: SLF001
    proxy._request = lambda body: plain(body).replace(b"\r\n", b"\r\n" + TRACED, 1)  # noqa: SLF001
    upstream, collector = proxy.free_port(), proxy.free_port()
    helpers = [
        subprocess.Popen([sys.executable, __file__, "--upstream", str(upstream)]),
        subprocess.Popen([sys.executable, __file__, "--collector", str(collector)]),
    ]
    try:
        proxy._first_reply_s(upstream, time.perf_counter())  # noqa: SLF001
        with tempfile.TemporaryDirectory() as folder:
            found = measure(Path(folder), upstream, collector, options.window, options.requests)
            log = max(Path(folder).glob("*.jsonl"), key=lambda each: each.stat().st_size)
            shadow_us = 1e6 * look_s(log) / (RATE_PER_S * EVERY_S)
    finally:
        for each in helpers:
            each.terminate()
            each.wait(10)
    told = report(found, shadow_us)
    if options.json:
        options.json.write_text(json.dumps(told, indent=2) + "\n")
    good = told["all"]["ratio"] <= LIMIT
    print(f"all together {'within' if good else 'ABOVE'} {LIMIT:g}")
    return not good


if __name__ == "__main__":
    sys.exit(main())
