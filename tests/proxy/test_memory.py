"""What callers send is bounded in memory, and where there is none left the sidecar lives on."""

import gc
import gzip
import json
import resource
import subprocess
import sys
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock.proxy.bodies import BodyRoom, Held
from penstock.proxy.request_reader import Prepared
from penstock.proxy.sidecar import body_room, limit_files
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    CHAT,
    GOOD_REPLY,
    HELLO,
    Reply,
    call,
    connect,
    eventually,
    in_front_of,
    sidecar,
)
from tests.proxy.test_fallback import QUOTA, WRONG, config, rule
from tests.proxy.test_relay import scripted

MB = 1 << 20
LIMIT = 700 * MB
CALLERS = 100
MANY = [{"role": "user", "content": [{"type": "text", "text": "a"}]}] * 20_000
"""Their content is a list: the collector does not know of a dictionary of texts alone."""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems do not hold to RLIMIT_AS")
def test_a_sidecar_without_memory_refuses_bodies_and_serves_on(
    mock: MockServer, tmp_path: Path
) -> None:
    """orjson, OpenBLAS and libuv end the process where they get no memory."""
    config = tmp_path / "penstock.toml"
    config.write_text(in_front_of(mock.url))
    body = json.dumps(
        {"model": "m", "messages": [{"role": "user", "content": "x" * 9 * MB}]}
    ).encode()
    with subprocess.Popen(
        [sys.executable, "-m", "penstock.cli.main", "serve", "-c", str(config)],
        stderr=subprocess.PIPE, text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT)),
    ) as process:  # fmt: skip
        assert process.stderr is not None
        line = next(line for line in process.stderr if "listens on" in line)
        port = int(line.split(":")[2].split("/")[0])

        def one(number: int) -> tuple[int, str]:
            key = {"authorization": f"Bearer k{number}", "x-mock-output-tokens": "1"}
            try:
                reply = call(port, body=body, headers=key, timeout_s=200)
            except ConnectionError as error:
                return 0, type(error).__name__
            return reply.status, "" if reply.status == 200 else reply.json()["error"]["code"]

        try:
            with ThreadPoolExecutor(CALLERS) as callers:
                ended = Counter(callers.map(one, range(CALLERS)))
            assert process.poll() is None
            assert call(port).status == 200
        finally:
            process.kill()
            process.stderr.read()
    refusals = {(503, "out_of_memory"), (503, "too_many_bytes_waiting")}
    assert ended.keys() <= {(200, ""), *refusals}
    assert ended[200, ""] > 0


@pytest.mark.parametrize(
    ("limit", "room"),
    [("max\n", 256 * MB), (f"{10_000 * MB}\n", 256 * MB), ("4096\n", 0), ("none", 256 * MB)],
)
def test_the_room_for_bodies_is_what_a_container_leaves(
    tmp_path: Path, limit: str, room: int
) -> None:
    file = tmp_path / "memory.max"
    file.write_text(limit)
    assert body_room(256 * MB, [file, tmp_path / "nothing"]) == room


@pytest.mark.parametrize(
    ("own", "files"),
    [
        ("0::/a/b.service", ["a/b.service/memory.max", "a/memory.max", "memory.max"]),
        (
            "9:cpu,memory:/b\n0::/",
            ["memory/b/memory.limit_in_bytes", "memory/memory.limit_in_bytes", "memory.max"],
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_a_services_limit_is_looked_for_where_it_stands(
    tmp_path: Path, own: str, files: list[str]
) -> None:
    told = tmp_path / "own"
    told.write_text(own)
    assert list(limit_files(told, tmp_path)) == [tmp_path / each for each in files]


def test_a_waiting_request_keeps_its_body_and_not_what_was_read_of_it() -> None:
    body = json.dumps({"model": "m", "messages": MANY}).encode()
    with (
        scripted([]) as silent,
        sidecar(in_front_of(f"http://127.0.0.1:{silent.port}")) as proxy,
        connect(proxy.port) as caller,
    ):
        before = sum(type(each) is dict for each in gc.get_objects())
        caller.sendall(_post(body))
        eventually(lambda: silent.requests)
        kept = sum(type(each) is dict for each in gc.get_objects()) - before
    assert kept < len(MANY) / 10


def test_nor_does_one_that_fell_back_keep_what_was_read_of_it() -> None:
    body = json.dumps({"model": "a", "messages": MANY}).encode()
    with (
        scripted([QUOTA]) as main,
        scripted([]) as silent,
        sidecar(config(main.port, silent.port, rule("a", "b"))) as proxy,
        connect(proxy.port) as caller,
    ):
        main.go()
        before = sum(type(each) is dict for each in gc.get_objects())
        caller.sendall(_post(body))
        eventually(lambda: silent.requests)
        kept = sum(type(each) is dict for each in gc.get_objects()) - before
    assert kept < len(MANY) / 10


@pytest.mark.parametrize("rules", ["", rule("a", "b")], ids=["plain", "fallback"])
@pytest.mark.parametrize("reply", [GOOD_REPLY, QUOTA, WRONG], ids=["good", "quota", "wrong"])
def test_a_call_that_has_ended_leaves_no_body_to_the_collector(reply: bytes, rules: str) -> None:
    with (
        scripted([reply]) as main,
        scripted([GOOD_REPLY]) as other,
        sidecar(config(main.port, other.port, rules)) as proxy,
    ):
        main.go()
        other.go()
        assert gc.get_threshold()[0] >= 1000  # it comes seldom
        gc.disable()
        try:
            call(proxy.port, body={**HELLO, "model": "a"})
            eventually(lambda: not any(type(each) is Prepared for each in gc.get_objects()))
        finally:
            gc.enable()


def test_where_bodies_fill_the_room_replies_that_lie_unread_have_a_quarter_of_it() -> None:
    """Or each reply that is just being written would be cut."""
    room = BodyRoom(4 * MB)
    body = Held(room, "")
    body.take(MB)
    assert room.unread_bytes() == 3 * MB
    body.take(3 * MB)
    assert room.unread_bytes() == MB


def test_what_a_packed_body_holds_is_counted(mock: MockServer) -> None:
    """A kilobyte of gzip is a megabyte as long as it waits."""
    packed = gzip.compress(json.dumps({**HELLO, "user": "x" * MB}).encode())
    more = {"content-encoding": "gzip"}
    toml = in_front_of(mock.url).replace("[server]", f"[server]\nmax_held_bytes = {MB}")
    with sidecar(toml) as proxy:
        refused: Reply = call(proxy.port, CHAT, body=packed, headers=more)
        assert refused.status == 503
        assert refused.json()["error"]["code"] == "too_many_bytes_waiting"
        assert call(proxy.port).status == 200


def _post(body: bytes) -> bytes:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body
