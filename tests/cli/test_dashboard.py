"""`penstock dashboard LOG` serves the page of a log until Ctrl-C."""

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

from click.testing import CliRunner

from penstock.cli.dashboard import command
from penstock.core.events import Arrived, Cancelled
from penstock.core.model import Request, TokenEstimate
from penstock.log.writer import DecisionLog


def _log(folder: Path) -> Path:
    log = DecisionLog(folder / "log.jsonl", run="r", now=0.0, wall=lambda: 0.0)
    log.event(1.0, Arrived(Request(7, "chat", 1.0, TokenEstimate(10, 20))))
    log.event(3.0, Cancelled(7))
    log.close()
    return log.path


def test_it_serves_the_page_until_it_is_stopped(tmp_path: Path) -> None:
    program = subprocess.Popen(
        [sys.executable, "-m", "penstock", "dashboard", str(_log(tmp_path)), "--port", "0"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert program.stdout is not None
    said = program.stdout.readline()
    address = said.split()[4]
    with urllib.request.urlopen(address, timeout=20) as page:
        assert b"<title>penstock</title>" in page.read()
    with urllib.request.urlopen(f"{address}/request?id=r-7", timeout=20) as found:
        assert json.load(found)["summary"][0] == (
            "It took 2.0 s: 2.0 s waiting here, 0.0 s at the provider."
        )
    program.send_signal(signal.SIGINT)

    assert program.wait(20) == 0
    assert "Ctrl-C ends it" in said


def test_what_is_wrong_is_one_line(tmp_path: Path) -> None:
    missing = CliRunner().invoke(command, [str(tmp_path / "no.jsonl")])
    assert missing.exit_code == 1
    assert "was the service told to write one?" in missing.output

    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        result = CliRunner().invoke(command, [str(_log(tmp_path)), "--port", port])
    assert result.exit_code == 1
    assert f"--port {port}: cannot listen on it" in result.output
