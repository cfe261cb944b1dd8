"""SIGTERM, or `stop`: nothing new, replies under way finish, the queued are told to come back."""

import os
import re
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    HELLO,
    SidecarThread,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)
from tests.proxy.test_http import CONTENT
from tests.proxy.test_relay import DONE, SSE, scripted

STREAM = {**HELLO, "stream": True}


def _read_all(sock: socket.socket) -> bytes:
    got = b""
    while data := sock.recv(65536):
        got += data
        if got.endswith(b"0\r\n\r\n"):
            break
    return got


def test_a_drain_lets_the_flying_finish_and_refuses_the_rest() -> None:
    with (
        scripted([SSE + CONTENT, DONE + b"0\r\n\r\n"]) as upstream,
        sidecar(in_front_of(f"http://127.0.0.1:{upstream.port}", window=1)) as proxy,
    ):
        flying = connect(proxy.port)
        flying.sendall(raw_request(STREAM))
        upstream.go()
        assert flying.recv(65536)
        queued = connect(proxy.port)
        queued.sendall(raw_request())
        eventually(lambda: proxy.snapshot().waiting == 1)

        proxy.begin_stop()

        told = queued.recv(65536)
        assert told.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nretry-after: " in told
        assert b'"reason":"draining"' in told
        late = call(proxy.port)
        assert late.status == 503
        assert late.json()["error"]["penstock"]["reason"] == "draining"
        ready = call(proxy.admin_port, "/readyz", method="GET", body=None)
        assert (ready.status, ready.body) == (503, b"draining\n")
        assert call(proxy.admin_port, "/healthz", method="GET", body=None).status == 200
        upstream.go()
        assert b"[DONE]" in _read_all(flying)
        assert proxy.finished()


def test_what_outlasts_the_grace_is_cut_off(mock: MockServer) -> None:
    toml = in_front_of(mock.url).replace("drain_grace_s = 20", "drain_grace_s = 0.2")
    with sidecar(toml) as proxy:
        flying = connect(proxy.port)
        flying.sendall(raw_request(STREAM, headers={"x-mock-output-tokens": "1000000"}))
        assert flying.recv(65536)

        proxy.begin_stop()

        assert proxy.finished()
        assert not _read_all(flying).endswith(b"0\r\n\r\n")
        eventually(lambda: mock.stats()["in_flight"] == 0)


def _serve(tmp_path: Path, toml: str) -> tuple["subprocess.Popen[bytes]", int]:
    config = tmp_path / "penstock.toml"
    config.write_text(toml)
    process = subprocess.Popen(
        [sys.executable, "-m", "penstock.cli.main", "serve", "-c", str(config)],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    line = process.stderr.readline().decode()
    found = re.search(r"http://127\.0\.0\.1:(\d+)/v1", line)
    assert found, line
    return process, int(found.group(1))


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_drains_the_process_and_it_ends_well(
    mock: MockServer, tmp_path: Path, signum: signal.Signals
) -> None:
    process, port = _serve(tmp_path, in_front_of(mock.url))
    flying = connect(port)
    flying.sendall(raw_request(STREAM, headers={"x-mock-output-tokens": "600"}))
    assert flying.recv(65536)

    os.kill(process.pid, signum)

    assert b"[DONE]" in _read_all(flying)
    assert process.wait(20) == 0
    assert process.stderr is not None
    assert b"Traceback" not in process.stderr.read()


def test_a_second_signal_cuts_it_short(mock: MockServer, tmp_path: Path) -> None:
    process, port = _serve(tmp_path, in_front_of(mock.url))
    flying = connect(port)
    flying.sendall(raw_request(STREAM, headers={"x-mock-output-tokens": "1000000"}))
    assert flying.recv(65536)
    drained = threading.Event()

    def watch() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            if b"draining" in line:
                drained.set()

    threading.Thread(target=watch, daemon=True).start()
    os.kill(process.pid, signal.SIGTERM)
    assert drained.wait(20)

    os.kill(process.pid, signal.SIGTERM)

    assert process.wait(20) == 0


def test_an_address_in_use_is_said_before_anything_runs(
    shared: SidecarThread, mock: MockServer, tmp_path: Path
) -> None:
    config = tmp_path / "penstock.toml"
    config.write_text(
        in_front_of(mock.url).replace("[server]\nport = 0", f"[server]\nport = {shared.port}")
    )
    ended = subprocess.run(
        [sys.executable, "-m", "penstock.cli.main", "serve", "-c", str(config)],
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert ended.returncode == 1
    assert f"server.port = {shared.port}: cannot listen on" in ended.stderr.decode()
    assert b"Address already in use (does another penstock run already?)" in ended.stderr
    assert b"Traceback" not in ended.stderr
