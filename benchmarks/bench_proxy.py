"""What the sidecar costs as it comes, beside nginx and (where it is installed) LiteLLM, in one run.

    python benchmarks/bench_proxy.py [--requests 20000] [--json result.json] [--against CHECKOUT]

All stand in front of the same upstream, which answers after 20 ms; one process each, all proxies
pinned to one core, load and upstream to the other, and their batches take turns: what else the
machine does hits all alike. penstock runs with its defaults, predictor and all. CPU is what the
kernel charged the proxy (user and system) divided by the requests. `aiohttp` is `bare_relay.py`:
what the sidecar's libraries take when they do nothing but relay; the rest is penstock's. All calls
are of one kind and none waits, so that the predictor reads ten a second of them; `all read` is a
penstock whose calls have a deadline, for which it reads each. Needs
Linux and nginx (`apt-get install nginx-light`), a plain reverse proxy; without it there are no
ratios. LiteLLM's proxy (`pip install 'litellm[proxy]'`) is looked for beside this Python.
`--against` adds the penstock of another checkout, to compare two versions in one run.
"""

import argparse
import asyncio
import contextlib
import functools
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

SYSTEM = {"role": "system", "content": "You are brief. " * 20}
BODY = json.dumps(
    {
        "model": "bench",
        "max_tokens": 64,
        "messages": [SYSTEM, {"role": "user", "content": "Tell me about penstocks. " * 64}],
    }
).encode()
STREAM_BODY = BODY[:-1] + b', "stream": true, "stream_options": {"include_usage": true}}'
MESSAGE = {"role": "assistant", "content": "water " * 280}
REPLY = json.dumps(
    {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1,
        "model": "bench",
        "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 400, "completion_tokens": 40, "total_tokens": 440},
    }
).encode()
ROOT = Path(__file__).resolve().parent.parent
EVENTS = 20
REPLY_AFTER_S = 0.02  # all requests side by side: a server that answers at once does so in turns
BATCHES = 10
SLOWER = 20  # so many times fewer requests for LiteLLM
TIMED = '[[classes]]\nname = "timed"\ndeadline_s = 3600\n'
LIMITS = {"cpu_ratio": 20.0, "stream_cpu_ratio": 6.0, "rss_mb": 90.0, "start_s": 1.0}


# The upstream: as cheap as Python can make it, so that it is never the bottleneck.


def _event(text: str, *, usage: bool = False) -> bytes:
    chunk: dict[str, object] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "bench",
        "choices": [] if usage else [{"index": 0, "delta": {"content": text}}],
    }
    if usage:
        chunk["usage"] = {"prompt_tokens": 400, "completion_tokens": EVENTS, "total_tokens": 420}
    data = b"data: " + json.dumps(chunk).encode() + b"\n\n"
    return b"%x\r\n%s\r\n" % (len(data), data)


class Upstream(asyncio.Protocol):
    head = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"
    whole = head % b"application/json" + b"content-length: %d\r\n\r\n" % len(REPLY) + REPLY
    stream_head = head % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n"
    pieces = [_event("water ") for _ in range(EVENTS)] + [
        _event("", usage=True) + b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
    ]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]
        self.buffer = b""

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        while True:
            head, mark, rest = self.buffer.partition(b"\r\n\r\n")
            if not mark:
                return
            length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            if len(rest) < length:
                return
            body, self.buffer = rest[:length], rest[length:]
            if b'"stream": true' in body[-120:]:
                self.transport.write(self.stream_head)
                asyncio.get_running_loop().call_soon(self._piece, 0)
            else:
                asyncio.get_running_loop().call_later(REPLY_AFTER_S, self._reply)

    def _reply(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.whole)

    def _piece(self, number: int) -> None:
        self.transport.write(self.pieces[number])
        if number + 1 < len(self.pieces):
            # One event a turn of the loop: they arrive one by one, as tokens do.
            asyncio.get_running_loop().call_later(0.001, self._piece, number + 1)


async def run_upstream(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Upstream, "127.0.0.1", port)
    await server.serve_forever()


# The load: keep-alive connections that send the same request again and again.


def whole(reply: bytes) -> bool:
    """Return whether all of a reply is there."""
    head, _, body = reply.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: *([0-9]+)", head, re.IGNORECASE)
    return len(body) >= int(length[1]) if length else body.endswith(b"0\r\n\r\n")


class Client(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self.request = request
        self.reply = b""
        self.done: asyncio.Future[None] | None = None
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    async def once(self) -> float:
        assert self.transport is not None
        begun = time.perf_counter()
        self.reply = b""
        self.done = asyncio.get_running_loop().create_future()
        self.transport.write(self.request)
        await self.done
        return time.perf_counter() - begun

    def data_received(self, data: bytes) -> None:
        self.reply += data
        if whole(self.reply) and self.done is not None and not self.done.done():
            if not self.reply.startswith(b"HTTP/1.1 200"):
                self.done.set_exception(RuntimeError(self.reply[:200].decode()))
                return
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.done is not None and not self.done.done():
            self.done.set_exception(RuntimeError(f"connection lost: {self.reply[:200]!r}"))


def _request(body: bytes) -> bytes:
    return (
        b"POST /v1/chat/completions HTTP/1.1\r\nhost: localhost\r\n"
        b"content-type: application/json\r\naccept: application/json\r\n"
        b"user-agent: bench/1\r\nauthorization: Bearer none\r\n"
        b"x-stainless-lang: python\r\ncontent-length: %d\r\n\r\n" % len(body)
    ) + body


async def _load(port: int, *, requests: int, lanes: int, stream: bool, rate: float) -> list[float]:
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    left = iter(range(requests))
    begun = loop.time()

    async def lane() -> None:
        request = _request(STREAM_BODY if stream else BODY)
        _, client = await loop.create_connection(lambda: Client(request), "127.0.0.1", port)
        for number in left:
            if rate:
                await asyncio.sleep(max(0.0, begun + number / rate - loop.time()))
            latencies.append(await client.once())
        assert client.transport is not None
        client.transport.close()

    await asyncio.gather(*(lane() for _ in range(lanes)))
    return latencies


def load(
    port: int, *, requests: int, lanes: int = 32, stream: bool = False, rate: float = 0.0
) -> list[float]:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_load(port, requests=requests, lanes=lanes, stream=stream, rate=rate))


# The proxies


@dataclass
class Measured:
    cpu_us: float = float("inf")
    stream_cpu_us: float = float("inf")
    p50_ms: float = 0.0
    rss_mb: float = 0.0
    start_s: float = 0.0
    per_second: float = 0.0
    notes: dict[str, float] = field(default_factory=dict)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def cpu_s(pids: list[int]) -> float:
    """Return the processes' time on a core so far, user and system, to the nanosecond."""
    spent_ns = 0
    for pid in pids:
        for task in Path(f"/proc/{pid}/task").iterdir():
            spent_ns += int((task / "schedstat").read_text().split()[0])
    return spent_ns / 1e9


def cpu_us_per_request(port: int, pids: list[int], requests: int, *, stream: bool) -> float:
    before = cpu_s(pids)
    load(port, requests=requests, stream=stream)
    return 1e6 * (cpu_s(pids) - before) / requests


def rss_mb(pids: list[int]) -> float:
    pages = sum(int(Path(f"/proc/{pid}/statm").read_text().split()[1]) for pid in pids)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _first_reply_s(port: int, begun: float) -> float:
    request = _request(BODY)
    while time.perf_counter() - begun < 30:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1) as sock:
            sock.sendall(request)
            reply = b""
            while not whole(reply):
                data = sock.recv(65536)
                if not data:
                    raise RuntimeError(f"no good first reply: {reply[:200]!r}")
                reply += data
            if not reply.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"no good first reply: {reply[:200]!r}")
            return time.perf_counter() - begun
        time.sleep(0.005)
    raise RuntimeError("the proxy did not start within 30 s")


@contextlib.contextmanager
def _serving(
    port: int, command: list[str], *, end: signal.Signals = signal.SIGTERM, **environ: str
) -> Iterator[tuple[int, list[int], float]]:
    """Run a proxy on its core; give its port, processes and seconds to the first reply."""
    begun = time.perf_counter()
    process = subprocess.Popen(
        command,
        env={**os.environ, **environ},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: os.sched_setaffinity(0, {PROXY_CORE}),
    )
    try:
        first_s = _first_reply_s(port, begun)
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        yield port, [process.pid, *map(int, children)], first_s
    finally:
        process.send_signal(end)
        process.wait(20)


@contextlib.contextmanager
def penstock(
    upstream: int, folder: Path, source: Path = ROOT / "src", more: str = ""
) -> Iterator[tuple[int, list[int], float]]:
    port = free_port()
    config = folder / "penstock.toml"
    config.write_text(
        f"""
[server]
port = {port}
[admin]
port = 0
[[upstreams]]
name = "bench"
base_url = "http://127.0.0.1:{upstream}/v1"
auth = "none"
{more}
"""
    )
    command = [sys.executable, "-m", "penstock.cli.main", "serve", "-c", str(config)]
    with _serving(port, command, PYTHONPATH=str(source)) as served:
        yield served


@contextlib.contextmanager
def bare_relay(upstream: int, folder: Path) -> Iterator[tuple[int, list[int], float]]:
    port = free_port()
    relay = ROOT / "benchmarks" / "bare_relay.py"
    with _serving(port, [sys.executable, str(relay), str(port), str(upstream)]) as served:
        yield served


@contextlib.contextmanager
def nginx(upstream: int, folder: Path) -> Iterator[tuple[int, list[int], float]]:
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(
        f"""
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
daemon off;
events {{ worker_connections 1024; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
  keepalive_requests 1000000;
  client_body_buffer_size 64k;
  upstream up {{ server 127.0.0.1:{upstream}; keepalive 64; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://up;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""
    )
    command = ["nginx", "-p", str(folder), "-c", str(config)]
    with _serving(port, command, end=signal.SIGQUIT) as served:
        yield served


def litellm_command() -> str | None:
    """Return the command of LiteLLM's proxy, if it is installed beside this Python."""
    return shutil.which("litellm", path=str(Path(sys.executable).parent))


@contextlib.contextmanager
def litellm(upstream: int, folder: Path) -> Iterator[tuple[int, list[int], float]]:
    port = free_port()
    config = folder / "litellm.yaml"
    config.write_text(
        f"""
model_list:
  - model_name: bench
    litellm_params:
      model: openai/bench
      api_base: http://127.0.0.1:{upstream}/v1
      api_key: none
"""
    )
    command = litellm_command()
    assert command is not None
    options = ["--config", str(config), "--host", "127.0.0.1", "--port", str(port)]
    with _serving(port, [command, *options]) as served:
        yield served


Proxy = Callable[[int, Path], contextlib.AbstractContextManager[tuple[int, list[int], float]]]


def measure(proxies: dict[str, Proxy], upstream: int, requests: int) -> dict[str, Measured]:
    """Measure all in turns; of each the least batch, as neighbours on the machine only ever add."""
    found: dict[str, Measured] = {}
    with contextlib.ExitStack() as stack:
        running: dict[str, tuple[int, list[int], int]] = {}
        for name, proxy in proxies.items():
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            port, pids, first_s = stack.enter_context(proxy(upstream, folder))
            batch = requests // BATCHES // (SLOWER if name == "LiteLLM" else 1)
            running[name] = port, pids, batch
            found[name] = Measured(start_s=first_s)
            load(port, requests=batch)
        for _ in range(BATCHES):
            for name, (port, pids, batch) in running.items():
                m = found[name]
                begun = time.perf_counter()
                m.cpu_us = min(m.cpu_us, cpu_us_per_request(port, pids, batch, stream=False))
                m.per_second = max(m.per_second, batch / (time.perf_counter() - begun))
                few = max(32, batch // 10)
                stream_us = cpu_us_per_request(port, pids, few, stream=True)
                m.stream_cpu_us = min(m.stream_cpu_us, stream_us)
        for name, (port, pids, _) in running.items():
            calm = load(port, requests=600, rate=200.0, lanes=8)
            found[name].p50_ms = 1e3 * statistics.median(calm)
            found[name].rss_mb = rss_mb(pids)
    return found


PROXY_CORE = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--against", type=Path, help="another checkout, measured beside this one")
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.upstream:
        import uvloop

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_upstream(options.upstream))
        return 0
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) > 1:
        os.sched_setaffinity(0, set(cores[1:]))
    port = free_port()
    upstream = subprocess.Popen([sys.executable, __file__, "--upstream", str(port)])
    try:
        _first_reply_s(port, time.perf_counter())
        results = measure(_proxies(options.against), port, options.requests)
    finally:
        upstream.terminate()
        upstream.wait(10)
    return report(results, options.json)


def _proxies(against: Path | None) -> dict[str, Proxy]:
    all_read = functools.partial(penstock, more=TIMED)
    found: dict[str, Proxy] = {"penstock": penstock, "all read": all_read, "aiohttp": bare_relay}
    if against is not None:
        found["against"] = functools.partial(penstock, source=against.resolve() / "src")
    if shutil.which("nginx"):
        found["nginx"] = nginx
    else:
        print("nginx is not installed (apt-get install nginx-light): no ratios")
    if litellm_command():
        found["LiteLLM"] = litellm
    return found


def report(results: dict[str, Measured], out: Path | None) -> int:
    print(
        f"{'':10}{'CPU us':>9}{'stream us':>11}{'p50 ms':>8}{'RSS MB':>8}{'start s':>9}{'req/s':>8}"
    )
    for name, m in results.items():
        print(
            f"{name:10}{m.cpu_us:9.1f}{m.stream_cpu_us:11.1f}{m.p50_ms:8.2f}{m.rss_mb:8.1f}"
            f"{m.start_s:9.2f}{m.per_second:8.0f}"
        )
    ours, theirs = results["penstock"], results.get("nginx")
    checks = {"rss_mb": ours.rss_mb, "start_s": ours.start_s}
    if theirs is not None:
        checks["cpu_ratio"] = ours.cpu_us / theirs.cpu_us
        checks["stream_cpu_ratio"] = ours.stream_cpu_us / theirs.stream_cpu_us
        print(f"added median: {ours.p50_ms - theirs.p50_ms:+.2f} ms")
        floor = results["aiohttp"]
        print(
            f"aiohttp alone: {floor.cpu_us / theirs.cpu_us:.1f} x nginx, "
            f"streams {floor.stream_cpu_us / theirs.stream_cpu_us:.1f} x"
        )
    worst = 0
    for name, value in checks.items():
        limit = LIMITS[name]
        good = value <= limit
        worst |= not good
        print(f"{name:18}{value:8.2f}  {'within' if good else 'ABOVE'} {limit:g}")
    if out is not None:
        out.write_text(json.dumps({k: asdict(m) for k, m in results.items()}, indent=2) + "\n")
    return worst


if __name__ == "__main__":
    sys.exit(main())
