"""A process that was suspended (SIGSTOP, a frozen container) first reads what came meanwhile.

All timers are due at once when it goes on, and event loops may tell of them before any byte.
"""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path

import pytest

from penstock.proxy.config import loads
from penstock.proxy.server import Running
from tests.proxy.sidecars import GOOD_REPLY, UNPREDICTED, connect, raw_request
from tests.proxy.test_no_progress import BEGUN, TOML
from tests.virtual_loop import VirtualLoop, run_virtual

SUSPENDED_S = 40.0
HEALTH = b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n"
REST = b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def suspend() -> None:
    loop = asyncio.get_running_loop()
    assert isinstance(loop, VirtualLoop)
    loop.hold(SUSPENDED_S)


def answer_with(serve: Serve, *, before_the_request: bool = False) -> bytes:
    """Return what a caller gets from a sidecar in front of such an upstream."""

    async def story() -> bytes:
        async with AsyncExitStack() as stack:
            upstream = await asyncio.start_server(serve, "127.0.0.1", 0)
            stack.push_async_callback(upstream.wait_closed)
            stack.callback(upstream.close)
            toml = TOML.format(port=upstream.sockets[0].getsockname()[1]) + UNPREDICTED
            running = Running(loads(toml, env={}))
            up = asyncio.Event()
            serving = asyncio.create_task(running.run(started=up.set, signals=False))
            await up.wait()
            reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
            await asyncio.sleep(0.1)
            writer.write(raw_request(headers={"connection": "close"}))
            if before_the_request:
                suspend()
            got = await reader.read()
            writer.close()
            running.stop()
            await serving
        return got

    return run_virtual(story(), grace_s=0.005)


async def _whole(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(GOOD_REPLY)
    suspend()
    writer.close()


async def _begun(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    writer.write(BEGUN)
    await asyncio.sleep(0.1)
    writer.write(REST)
    suspend()
    writer.close()


async def _silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    suspend()
    await reader.read()
    writer.close()


async def _late_again_and_again(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.readuntil(b"\r\n\r\n")
    for _ in range(20):
        suspend()
        await asyncio.sleep(0.01)
    writer.write(GOOD_REPLY)
    writer.close()


@pytest.mark.parametrize("serve", [_whole, _begun])
def test_an_answer_that_came_while_suspended_reaches_its_caller(serve: Serve) -> None:
    answer = answer_with(serve)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert answer.rstrip(b"\r\n0").endswith((b"}", b"data: [DONE]"))


def test_a_request_that_came_while_suspended_is_served() -> None:
    async def at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(GOOD_REPLY)
        writer.close()

    answer = answer_with(at_once, before_the_request=True)
    assert answer.startswith(b"HTTP/1.1 200 ")


def test_an_idle_connection_serves_what_came_while_suspended(tmp_path: Path) -> None:
    """A stopped process, as only that is woken in the middle of its wait for events."""
    config = tmp_path / "penstock.toml"
    config.write_text(
        "[server]\nport = 0\nkeep_alive_s = 1.0\n[admin]\nenabled = false\n"
        f'[[upstreams]]\nbase_url = "http://127.0.0.1:9/v1"\nauth = "none"\n{UNPREDICTED}'
    )
    serve = [sys.executable, "-m", "penstock.cli.main", "serve", "-c", str(config)]
    with subprocess.Popen(serve, stderr=subprocess.PIPE, text=True) as process, ExitStack() as over:
        over.callback(process.kill)
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listens on" in line)
        port = int(line.split(":")[2].split("/")[0])
        with connect(port) as sock:
            sock.sendall(HEALTH)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            os.kill(process.pid, signal.SIGSTOP)
            sock.sendall(HEALTH)
            time.sleep(3.5)  # longer than its idle time, and than what counts as late
            os.kill(process.pid, signal.SIGCONT)
            assert sock.recv(65536).startswith(b"HTTP/1.1 200 ")
            assert sock.recv(65536) == b""  # it ends once it is idle for so long


@pytest.mark.parametrize("serve", [_silent, _late_again_and_again])
def test_an_upstream_that_said_nothing_meanwhile_is_given_up(serve: Serve) -> None:
    assert answer_with(serve).startswith(b"HTTP/1.1 504 ")


def test_a_caller_that_sends_no_head_is_closed_however_late_the_clock_is() -> None:
    async def story() -> None:
        toml = TOML.format(port=9).replace("[server]", "[server]\nkeep_alive_s = 3600.0")
        running = Running(loads(toml + UNPREDICTED, env={}))
        up = asyncio.Event()
        serving = asyncio.create_task(running.run(started=up.set, signals=False))
        await up.wait()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.port)
        await asyncio.sleep(0.1)
        for _ in range(10):
            suspend()
            await asyncio.sleep(0.1)
        assert reader.at_eof()
        writer.close()
        running.stop()
        await serving

    run_virtual(story(), grace_s=0.005)
