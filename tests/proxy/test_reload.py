"""penstock.toml is read again while calls are under way: the whole file, or nothing of it."""

import itertools
import json
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from penstock.cli.group import group
from penstock.core.events import Reconfigured
from penstock.errors import ConfigError
from penstock.log.reader import read_log, replayed
from penstock.proxy.config import load
from penstock.proxy.reload import read_settled
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.proxy.sidecars import (
    HELLO,
    Reply,
    SidecarThread,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
)
from tests.proxy.test_browsers import BEARER, ENV, TOKEN, WITH_TOKEN
from tests.proxy.test_http import CONTENT
from tests.proxy.test_relay import DONE, SSE, scripted

MANY_TOKENS = {"x-mock-output-tokens": "3000"}
LOG = "[log]\ndecisions_path = '{log}'\n"


class FromFile:
    """A sidecar whose file a test rewrites."""

    def __init__(self, path: Path, toml: str) -> None:
        self.path = path
        self.env = dict(ENV)
        self.write(toml)
        self.thread = SidecarThread(toml, self.env, read=lambda: load(path, env=self.env)).start()
        self.port, self.admin_port = self.thread.port, self.thread.admin_port

    def write(self, toml: str) -> None:
        self.toml = toml
        self.path.write_text(toml)

    def change(self, old: str, new: str) -> None:
        assert old in self.toml
        self.write(self.toml.replace(old, new))

    def move_to(self, url: str) -> None:
        """Have its upstreams at another address."""
        self.write(self.toml.replace(self.toml.split('base_url = "')[1].split("/v1")[0], url))
        assert self.reload()[0] == 200

    def reload(self) -> tuple[int, Any]:
        reply = call(self.admin_port, "/admin/reload", headers=BEARER)
        return reply.status, reply.json()

    @property
    def generation(self) -> int:
        return int(self.thread.snapshot().generation)


@pytest.fixture
def filed(mock: MockServer, tmp_path: Path) -> Iterator[FromFile]:
    log = LOG.format(log=tmp_path / "decisions.jsonl")
    toml = in_front_of(mock.url, window=1, more=WITH_TOKEN + log + '[predictor]\nkind = "off"\n')
    filed = FromFile(tmp_path / "penstock.toml", toml)
    try:
        yield filed
    finally:
        filed.thread.stop()


def test_a_new_window_is_taken_with_calls_under_way_and_the_difference_is_told(
    filed: FromFile,
) -> None:
    long = raw_request({**HELLO, "stream": True})
    with (
        scripted([SSE + CONTENT, DONE + b"0\r\n\r\n"]) as upstream,
        connect(filed.port) as first,
        connect(filed.port) as second,
    ):
        filed.move_to(f"http://127.0.0.1:{upstream.port}")
        first.sendall(long)
        eventually(lambda: filed.thread.snapshot().in_flight == 1)
        second.sendall(long)
        eventually(lambda: filed.thread.snapshot().waiting == 1)
        filed.change("window = 1", "window = 2")
        status, answer = filed.reload()
        assert status == 200
        assert answer["generation"] == 3
        capacity = "scheduler.capacity: fixed, window = 1 -> fixed, window = 2"
        assert answer["changed"] == [capacity]
        eventually(lambda: filed.thread.snapshot().in_flight == 2)
        upstream.go(4)
        for caller in (first, second):
            got = b""
            while not got.endswith(b"0\r\n\r\n"):
                got += caller.recv(65536)
            assert b"[DONE]" in got
    metrics = call(filed.admin_port, "/metrics", method="GET", headers=BEARER).body.decode()
    assert "penstock_generation 3.0" in metrics


def test_a_models_limit_comes_and_goes_with_the_file(filed: FromFile) -> None:
    small = {**HELLO, "model": "small"}
    named = "[upstreams.model_limits.small]\nrequests_per_min = 1\n"
    there = "upstreams[open].model_limits[small]"
    filed.change('[[upstreams]]\nname = "anthropic"', f'{named}[[upstreams]]\nname = "anthropic"')
    status, answer = filed.reload()
    assert (status, answer["changed"]) == (200, [f"{there}: added"])
    assert call(filed.port, body=small).status == 200
    with connect(filed.port) as caller:
        caller.sendall(raw_request(small))
        eventually(lambda: filed.thread.snapshot().waiting == 1)
        filed.change("requests_per_min = 1\n", "requests_per_min = 500\n")
        assert filed.reload()[1]["changed"] == [f"{there}.requests_per_min: 1.0 -> 500.0"]
        assert b" 200 " in caller.recv(65536)
    filed.change(named.replace("= 1", "= 500"), "")
    assert filed.reload()[1]["changed"] == [f"{there}: removed"]


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("window = 1", "window = 1.5", "window"),
        ('[[upstreams]]\nname = "open"', '[[upstreams]\nname = "open"', "TOML"),
        ("[server]\nport = 0", "[server]\nport = 9", "server.port: only a restart"),
        ('token_env = "ADMIN_TOKEN"', 'token_env = "GONE"', "not set or empty"),
        ('kind = "off"', 'kind = "online"', "predictor.kind: only a restart"),
    ],
)
def test_a_file_that_cannot_be_taken_changes_nothing(
    filed: FromFile, old: str, new: str, words: str
) -> None:
    good = filed.toml
    filed.change(old, new)
    status, answer = filed.reload()
    assert status == 409
    assert words in answer["refused"]
    assert (answer["generation"], filed.generation) == (1, 1)
    assert call(filed.port).status == 200

    filed.write(good)
    assert filed.reload()[0] == 200


def test_a_file_that_is_gone_or_not_to_be_read_changes_nothing(filed: FromFile) -> None:
    filed.path.unlink()
    assert "No such file" in filed.reload()[1]["refused"]
    filed.path.mkdir()
    assert filed.reload()[0] == 409
    assert call(filed.port).status == 200


def test_a_file_that_everybody_may_write_is_not_believed(
    filed: FromFile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filed.change("window = 1", "window = 2")
    for what, told in ((filed.path, "may be written by everybody"), (tmp_path, "into its folder")):
        mode = what.stat().st_mode & 0o777
        what.chmod(mode | 0o002)
        status, answer = filed.reload()
        assert (status, filed.generation) == (409, 1)
        assert told in answer["refused"]
        assert f"chmod o-w {what}" in answer["refused"]
        checked = CliRunner().invoke(group, ["serve", "--check", "-c", str(filed.path)])
        assert checked.exit_code == 1
        assert told in checked.output
        what.chmod(mode)

    for what in (tmp_path, filed.path):
        what.chmod(0o777)  # as Kubernetes mounts a ConfigMap, and Docker on Windows all: read-only
    monkeypatch.setattr("os.statvfs", lambda _: SimpleNamespace(f_flag=os.ST_RDONLY))
    assert filed.reload()[0] == 200


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "penstock.toml"
    os.mkfifo(path)  # nobody writes
    with pytest.raises(ConfigError, match="is a pipe or a device"):
        read_settled(path)


def test_half_of_a_file_is_not_taken_for_a_whole_one(
    mock: MockServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "penstock.toml"
    whole = '[[upstreams]]\nbase_url = "http://h/v1"\n[[upstreams]]\nname = "b"\nbase_url = "http://b/v1"\n'
    path.write_text(whole[: whole.index("[[upstreams]]\nname")])  # good TOML, one upstream short
    monkeypatch.setattr("time.sleep", lambda _: path.write_text(whole))
    with pytest.raises(ConfigError, match="changed while it was read"):
        read_settled(path)
    monkeypatch.undo()
    assert len(read_settled(path).config.upstreams) == 2


def test_an_upstream_with_calls_in_flight_is_not_removed(
    filed: FromFile, mock: MockServer, tmp_path: Path
) -> None:
    with connect(filed.port) as caller:
        caller.sendall(
            raw_request({**HELLO, "stream": True}, headers={"x-mock-output-tokens": "99999"})
        )
        eventually(lambda: filed.thread.snapshot().in_flight == 1)
        filed.change('name = "open"', 'name = "other"')
        status, answer = filed.reload()
        assert status == 409
        assert "1 calls are in flight to upstream 'open'" in answer["refused"]
        assert "upstreams[open]: removed" in answer["changed"]
    eventually(filed.thread.idle)
    assert filed.reload()[0] == 200
    assert call(filed.port).status == 200
    filed.thread.stop()
    names = [type(record.what) for record in read_log(tmp_path / "decisions.jsonl")]
    assert names.count(Reconfigured) == 1, "what was refused has not happened"


def test_an_upstream_that_moves_is_called_at_its_new_place(filed: FromFile) -> None:
    assert call(filed.port).status == 200
    with MockServer(MockSettings(provider={"model": "slots"})) as other:
        before = other.stats()["requests"]
        filed.move_to(other.url)
        assert call(filed.port).status == 200
        assert other.stats()["requests"] != before


def test_keys_are_read_again_and_callers_with_old_ones_are_refused(
    mock: MockServer, tmp_path: Path
) -> None:
    key = tmp_path / "alice"
    key.write_text("pk-alice-0000000000")
    toml = in_front_of(mock.url, more=WITH_TOKEN + '[predictor]\nkind = "off"\n')
    toml += f"[[keys]]\nname = 'alice'\nkey_file = '{key}'\n"
    filed = FromFile(tmp_path / "penstock.toml", toml)
    try:
        old = {"authorization": "Bearer pk-alice-0000000000"}
        new = {"authorization": "Bearer pk-alice-1111111111"}
        assert call(filed.port, headers=old).status == 200
        key.write_text("pk-alice-1111111111")
        assert filed.reload() == (
            200,
            {"generation": 2, "changed": [], "refused": "", "needs_restart": []},
        )
        assert call(filed.port, headers=old).status == 401
        assert call(filed.port, headers=new).status == 200
        filed.env["ADMIN_TOKEN"] = "another-token-0123456789"
        assert filed.reload()[0] == 200
        assert call(filed.admin_port, "/admin/reload", headers=BEARER).status == 401
    finally:
        filed.thread.stop()


def test_the_command_tells_the_difference_and_the_refusal(
    filed: FromFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PENSTOCK_ADMIN_TOKEN", TOKEN)
    admin = ["--admin", f"http://127.0.0.1:{filed.admin_port}"]
    filed.change("[anonymous]", "[anonymous]\nmay_state_tokens = true")
    taken = CliRunner().invoke(group, ["reload", *admin])
    assert taken.output.splitlines() == [
        "  anonymous.may_state_tokens: False -> True",
        "Generation 2 holds now.",
    ]
    again = CliRunner().invoke(group, ["reload", *admin])
    assert again.output.splitlines() == [
        "  nothing has changed but what keys may hold",
        "Generation 3 holds now.",
    ]
    filed.change("window = 1", "window = 0")
    refused = CliRunner().invoke(group, ["reload", *admin])
    assert refused.exit_code == 1
    assert "Refused; generation 3 goes on" in refused.output


def test_a_log_with_reloads_in_it_replays_exactly(filed: FromFile, tmp_path: Path) -> None:
    for size in (1, 3, 2):
        filed.write(filed.toml.replace("window = 1", f"window = {size}"))
        assert filed.reload()[0] == 200
        with ThreadPoolExecutor(6) as pool:
            replies = list(pool.map(lambda _: call(filed.port), range(12)))
        assert {reply.status for reply in replies} == {200}
        filed.write(filed.toml.replace(f"window = {size}", "window = 1"))
    eventually(filed.thread.idle)
    filed.thread.stop()
    moments = list(replayed(read_log(tmp_path / "decisions.jsonl")))
    assert sum(len(recorded) for _, recorded, _ in moments) >= 36
    assert all(recorded == decided for _, recorded, decided in moments)


def test_a_hundred_reloads_under_load_drop_nothing(filed: FromFile) -> None:
    """Counts only; benchmarks/bench_reload.py measures the pauses of a thousand."""
    stop = threading.Event()
    statuses: list[int] = []
    replies: list[Reply] = []

    def caller() -> None:
        while not stop.is_set():
            reply = call(filed.port, headers={"x-mock-output-tokens": "20"})
            statuses.append(reply.status)
            if reply.status != 200:
                replies.append(reply)

    threads = [threading.Thread(target=caller) for _ in range(4)]
    for thread in threads:
        thread.start()
    classes = "[[classes]]\nname = 'all'\nbuckets = ['short', 'medium', 'long', 'xlong']\n"
    renamed = classes.replace("'all'", "'every'\nwas = ['all', 'interactive', 'heavy']")
    try:
        for round_ in itertools.count():
            if round_ >= 100 and len(statuses) >= 100:
                break
            filed.write(filed.toml.split("[[classes]]")[0] + (classes, renamed, "")[round_ % 3])
            status, answer = filed.reload()
            assert (status, answer["generation"]) == (200, round_ + 2)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}, replies
    eventually(filed.thread.idle)


def test_a_list_that_changed_is_told_by_what_it_holds(filed: FromFile) -> None:
    filed.change("[server]", "[server]\nhosts = ['a.example']")
    assert filed.reload()[1]["changed"] == ["server.hosts: [] -> ['a.example']"]


def test_the_room_for_bodies_is_changed_and_what_is_held_stays(filed: FromFile) -> None:
    large = {**HELLO, "user": "x" * 5000}
    with connect(filed.port) as first:
        first.sendall(raw_request({**HELLO, "stream": True}, headers=MANY_TOKENS))
        eventually(lambda: filed.thread.snapshot().in_flight == 1)
        filed.change("[server]", "[server]\nmax_held_bytes = 4096")
        assert filed.reload()[1]["needs_restart"] == []
        assert call(filed.port, body=large).status == 503
        filed.change("max_held_bytes = 4096", "max_held_bytes = 1_000_000")
        assert filed.reload()[0] == 200
    assert call(filed.port, body=large).status == 200


def test_the_answer_shows_no_key(filed: FromFile) -> None:
    filed.change("[server]", "[server]\nhosts = ['a.example']")
    assert TOKEN not in json.dumps(filed.reload()[1])
