"""`penstock top` shows the dashboard's Now where there is no browser."""

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time

import pytest
from click.testing import CliRunner

from penstock.cli.top import command
from penstock.dashboard.views import COLUMNS, view
from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.dashboard.scenes import busy
from tests.proxy.sidecars import (
    UNPREDICTED,
    call,
    connect,
    eventually,
    in_front_of,
    raw_request,
    sidecar,
)

SLOW = {"model": "slots", "slots": 1, "tokens_per_s": 10.0, "ttft_s": 0.01}


def test_it_tells_what_waits_and_for_what_and_runs_until_it_is_stopped() -> None:
    """Once where there is no terminal; in one, again and again until Ctrl-C."""
    headers = {"x-mock-output-tokens": "1000", "x-penstock-tenant": "team-a"}
    with (
        MockServer(MockSettings(provider=SLOW)) as mock,
        sidecar(in_front_of(mock.url, window=1, more=UNPREDICTED)) as proxy,
        connect(proxy.port) as first,
        connect(proxy.port) as second,
    ):
        first.sendall(raw_request(headers=headers))
        eventually(lambda: proxy.snapshot().in_flight == 1)
        second.sendall(raw_request(headers=headers))
        eventually(lambda: proxy.snapshot().waiting == 1)
        admin = f"http://127.0.0.1:{proxy.admin_port}"

        told = CliRunner().invoke(command, ["--admin", admin]).output
        assert "1 waiting, 1 in flight" in told
        assert "1 there was no room" in " ".join(told.split())
        assert "team-a" in told

        arguments = [sys.executable, "-m", "penstock", "top", "--admin", admin, "--every", "0.2"]
        assert _screens(arguments, wanted=3) >= 3


def _screens(arguments: list[str], *, wanted: int) -> int:
    """Run a program in a terminal until it has drawn so often; end it by Ctrl-C."""
    ours, its = pty.openpty()
    program = subprocess.Popen(
        arguments, stdin=its, stdout=its, stderr=its, env={**os.environ, "TERM": "xterm"}
    )
    os.close(its)
    seen = ""
    until = time.monotonic() + 60
    while len(re.findall("1 waiting, 1 in flight", seen)) < wanted and time.monotonic() < until:
        if select.select([ours], [], [], 1.0)[0]:
            seen += os.read(ours, 65536).decode(errors="replace")
    program.send_signal(signal.SIGINT)
    ended = program.wait(20)
    os.close(ours)
    assert ended == 0, seen[-500:]
    return len(re.findall("1 waiting, 1 in flight", seen))


def test_names_of_callers_cannot_write_on_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    evil = "\x1b]0;owned\x07[red]x"
    row = {"id": "r-1", "traffic_class": "a", "tenant": evil, "waited_s": 1.0, "attempts": 0}
    now = {
        "at": 0.0,
        "draining": False,
        "severity": 0.0,
        "columns": COLUMNS,
        "classes": [],
        "pins": [],
        "fallbacks": [],
        "slowest": [],
        "turned_away": [],
        "upstreams": [],
        "longest_waiting": [row],
        "words": {"waits": {}},
    }
    monkeypatch.setattr("penstock.cli.top.ask", lambda *_: (200, json.dumps(now).encode()))
    told = CliRunner().invoke(command, ["--once"]).output

    assert "\x1b" not in told
    assert "\x07" not in told
    assert r"\x1b]0;owned\x07[red]x" in told


def test_without_a_sidecar_it_says_so_in_a_line() -> None:
    result = CliRunner().invoke(command, ["--admin", "http://127.0.0.1:9"])

    assert result.exit_code == 1
    assert "is it running, and on that port?" in result.output


def test_a_slow_call_that_has_ended_and_calls_without_a_key_are_told_in_80_columns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    slow = {**SLOW, "tokens_per_s": 100.0}
    with (
        MockServer(MockSettings(provider=slow)) as mock,
        sidecar(in_front_of(mock.url, window=1, more=UNPREDICTED)) as proxy,
    ):
        call(proxy.port, headers={"x-mock-output-tokens": "30"})
        assert call(proxy.port, "/v1/nothing-here", body={"model": "m"}).status >= 400
        admin = f"http://127.0.0.1:{proxy.admin_port}"
        told = CliRunner().invoke(command, ["--admin", admin]).output

    assert max(map(len, told.splitlines())) <= 80
    assert re.search(r"request +took +mostly because +waited here +class", told)
    assert "the provider took so long" in told
    assert re.search(r"Never scheduled\s+requests +status +path\s+1 +4\d\d", told)


def test_it_has_the_columns_of_the_page_in_the_pages_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of them where there is room; in 80 columns some are left out."""
    source = busy()
    source.gone_on = {("m", "n", "rate"): 3.0}
    source.refused_unscheduled = {("/v1/models", "401"): 2.0}
    pin = {"what": "window", "name": "practice", "value": 3.0, "left_s": 7200.0}
    now = view(source, "now") | {"pins": [pin]}
    monkeypatch.setattr("penstock.cli.top.ask", lambda *_: (200, json.dumps(now).encode()))
    heads = [[column.removesuffix(" #") for column in each] for each in now["columns"].values()]
    for width, found in (("200", heads), ("80", None)):
        monkeypatch.setenv("COLUMNS", width)
        told = CliRunner().invoke(command, ["--once"]).output.splitlines()
        lines = [re.split("  +", line.strip()) for line in told]
        shown = [line for line in lines if line[0] in {head[0] for head in heads}]
        assert max(map(len, told)) <= int(width)
        assert len(shown) == len(heads)
        for head, line in zip(heads, shown, strict=True):
            left = iter(head)
            assert line == head if found else all(column in left for column in line), width
    assert "2.0 h" in " ".join(told)
