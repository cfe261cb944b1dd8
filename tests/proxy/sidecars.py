"""A sidecar in a thread of the test's process, and small tools to talk to it raw."""

import asyncio
import contextlib
import http.client
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import uvloop

from penstock.proxy.config import Loaded, loads
from penstock.proxy.server import Running

CHAT = "/v1/chat/completions"
UNPREDICTED = '[predictor]\nkind = "off"\n'
"""For stories that name the table's estimate, and the class it leads to."""
HELLO: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hello there"}]}
GOOD = (
    b'{"choices":[{"message":{"content":"x"},"text":"x"}],"content":[],"output":[],'
    b'"data":[{"embedding":[1.0]}]}'
)
"""What every endpoint would call a reply."""

GOOD_REPLY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(GOOD)
) + GOOD


@dataclass
class Reply:
    """A whole HTTP answer."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class SidecarThread:
    """A sidecar that listens; `url` is what SDKs take as their base (with /v1 for openai)."""

    def __init__(
        self,
        toml: str,
        env: Mapping[str, str] | None = None,
        read: Callable[[], Loaded] | None = None,
    ) -> None:
        self._toml = toml
        self._read = read
        self._env = env or {}
        self._up = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self.running: Running | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> "SidecarThread":
        self._thread.start()
        assert self._up.wait(20), "the sidecar did not start"
        if self._failure is not None:
            raise self._failure
        return self

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                runner.run(self._serve())
        except BaseException as error:
            self._failure = error
            self._up.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.running = Running(loads(self._toml, env=self._env), self._read)
        await self.running.run(started=self._up.set, signals=False)

    @property
    def url(self) -> str:
        assert self.running is not None
        return f"http://127.0.0.1:{self.running.port}"

    @property
    def port(self) -> int:
        assert self.running is not None
        return self.running.port

    @property
    def admin_port(self) -> int:
        assert self.running is not None
        return self.running.admin_port

    def snapshot(self) -> Any:
        assert self.running is not None
        return self.running.sidecar.snapshot()

    def metrics(self) -> str:
        """Return the metrics page once what callers have read is counted.

        A caller has the end of its reply before the sidecar has counted it.
        """
        eventually(self.idle)
        return call(self.admin_port, "/metrics", method="GET", body=None).body.decode()

    def begin_stop(self) -> None:
        assert self._loop is not None
        assert self.running is not None
        self._loop.call_soon_threadsafe(self.running.stop)

    def stop(self) -> None:
        if self._thread.is_alive():
            # Twice: a test that left a reply hanging is not waited for.
            self.begin_stop()
            with contextlib.suppress(RuntimeError):  # the first was enough, and the loop has closed
                self.begin_stop()
        self._thread.join(20)
        assert not self._thread.is_alive(), "the sidecar did not stop"

    def finished(self, within_s: float = 20) -> bool:
        self._thread.join(within_s)
        return not self._thread.is_alive()

    def idle(self) -> bool:
        """Say whether nothing waits and nothing flies."""
        assert self.running is not None
        state = self.snapshot()
        return (
            self.running.sidecar.in_hand == 0
            and state.in_flight == 0
            and state.waiting == 0
            and state.deferred == 0
        )


@contextlib.contextmanager
def sidecar(toml: str, env: Mapping[str, str] | None = None) -> Iterator[SidecarThread]:
    thread = SidecarThread(toml, env).start()
    try:
        yield thread
    finally:
        thread.stop()


def in_front_of(
    url: str, *, window: float = 8, more: str = "", upstream: str = "", classes: str = ""
) -> str:
    """Return a configuration with one upstream that speaks both dialects."""
    return f"""
[server]
port = 0
drain_grace_s = 20
[admin]
port = 0
{more}
[anonymous]
may_ask = ["*"]
shortest_deadline_s = 0.001
may_name_tenant = true
[scheduler.capacity]
kind = "fixed"
window = {window}
[[upstreams]]
name = "open"
base_url = "{url}/v1"
auth = "none"
{upstream}
[[upstreams]]
name = "anthropic"
dialect = "anthropic"
base_url = "{url}/v1"
auth = "none"
{upstream}
{classes}
"""


def call(
    port: int,
    path: str = CHAT,
    *,
    method: str = "POST",
    body: Any = HELLO,
    headers: Mapping[str, str] | None = None,
    timeout_s: float = 20,
) -> Reply:
    """Send one request and read the whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout_s)
    data = body if isinstance(body, bytes) else None if body is None else json.dumps(body).encode()
    try:
        connection.request(method, path, data, dict(headers or {}))
        answer = connection.getresponse()
        found = {name.lower(): value for name, value in answer.getheaders()}
        return Reply(answer.status, found, answer.read())
    finally:
        connection.close()


def raw_request(
    body: Any = HELLO, *, path: str = CHAT, headers: Mapping[str, str] | None = None
) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "host: localhost", f"content-length: {len(data)}"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def eventually(condition: Callable[[], object], *, within_s: float = 60.0) -> None:
    """Wait until the condition holds; fail if it never does."""
    until = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < until, f"never became true: {condition}"
        time.sleep(0.005)
