"""What watching costs the sidecar: dashboard and OpenTelemetry, each alone and together.

    python benchmarks/bench_observe.py [--requests 10000] [--json result.json]

One sidecar with nothing on (no admin port), one with the dashboard open in one browser, one whose
traces and metrics go to a collector, one with both. All run side by side before the same upstream,
and are sent batches in turn; what counts is each one's cheapest batch, in the processor's time of
its own process, exports included. Every call is sampled, and joins its caller's trace.
"""

import argparse
import asyncio
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import bench_proxy as proxy

BATCHES = 12
LIMIT = 1.3
"""Asked for everything together, with shadow policies too."""
ADMIN_OFF = "enabled = false"
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


@contextlib.contextmanager
def sidecar(
    folder: Path, upstream: int, *, dashboard: bool, collector: int | None
) -> Iterator[tuple[int, int]]:
    """Run one; yield its port and its process."""
    port, admin = proxy.free_port(), proxy.free_port()
    config = folder / f"{port}.toml"
    config.write_text(
        f"""
[server]
port = {port}
[admin]
port = {admin}
{"" if dashboard else ADMIN_OFF}
[otel]
enabled = {"true" if collector else "false"}
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
        if dashboard:
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


def measure(folder: Path, upstream: int, collector: int, requests: int) -> dict[str, float]:
    """Return the processor's time a request, in microseconds, of each way to watch."""
    ways = {
        "nothing": {"dashboard": False, "collector": None},
        "dashboard": {"dashboard": True, "collector": None},
        "OpenTelemetry": {"dashboard": False, "collector": collector},
        "both": {"dashboard": True, "collector": collector},
    }
    best = dict.fromkeys(ways, float("inf"))
    with contextlib.ExitStack() as stack:
        running = {
            name: stack.enter_context(sidecar(folder, upstream, **way))  # type: ignore[arg-type]
            for name, way in ways.items()
        }
        for port, _ in running.values():
            proxy.load(port, requests=500)
        for _ in range(BATCHES):
            for name, (port, pid) in running.items():
                before = proxy.cpu_s([pid])
                proxy.load(port, requests=requests // BATCHES)
                spent_us = 1e6 * (proxy.cpu_s([pid]) - before) / (requests // BATCHES)
                best[name] = min(best[name], spent_us)
    return best


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=10_000)
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
            found = measure(Path(folder), upstream, collector, options.requests)
    finally:
        for each in helpers:
            each.terminate()
            each.wait(10)
    print(f"{'watched by':16}{'CPU us a request':>18}{'ratio':>8}")
    for name, spent_us in found.items():
        print(f"{name:16}{spent_us:18.1f}{spent_us / found['nothing']:8.2f}")
    if options.json:
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    good = found["both"] <= LIMIT * found["nothing"]
    print(f"together {'within' if good else 'ABOVE'} {LIMIT:g}")
    return not good


if __name__ == "__main__":
    sys.exit(main())
