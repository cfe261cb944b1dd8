"""`penstock mock` as its users meet it: a process on a port."""

import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest
from click.testing import CliRunner

from penstock.cli.group import group


@contextmanager
def mock(*args: str) -> Iterator[str]:
    """Run the command on a free port, yield its address, and stop it as a user would."""
    command = [sys.executable, "-m", "penstock.cli.main", "mock", "--port", "0", *args]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            line = process.stdout.readline()
            found = re.search(r"http://127\.0\.0\.1:\d+$", line.strip())
            assert found, line
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


def test_it_prints_its_address_and_answers_there(tmp_path: Path) -> None:
    config = tmp_path / "mock.toml"
    config.write_text('[provider]\nmodel = "slots"\nttft_s = 0.0\ntokens_per_s = 1e6\n', "utf-8")

    with mock("--config", str(config), "--set", "slots=3", "--api-key", "k") as url:
        headers = {"authorization": "Bearer k", "x-mock-output-tokens": "4"}
        body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
        refused = httpx2.post(f"{url}/v1/chat/completions", json=body)
        answer = httpx2.post(f"{url}/v1/chat/completions", json=body, headers=headers)

    assert refused.status_code == 401
    assert answer.json()["usage"]["completion_tokens"] == 4


def test_a_parameter_without_a_value_is_a_usage_error() -> None:
    result = CliRunner().invoke(group, ["mock", "--set", "slots"])

    assert result.exit_code == 2
    assert "--set: 'slots' must be NAME=VALUE" in result.output


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--set", "slots=0"], "provider.slots = 0: must be a whole number >= 1"),
        (["--model", "magic"], "provider.model = 'magic': must be one of"),
        (["--set", "tokens_per_s=fast"], "provider.tokens_per_s = 'fast': must be a finite"),
        (["--host", "256.0.0.1"], "cannot listen on 256.0.0.1"),
    ],
)
def test_what_cannot_be_is_one_line(args: list[str], message: str) -> None:
    result = CliRunner().invoke(group, ["mock", "--port", "0", *args])

    assert result.exit_code == 1
    assert message in result.output
    assert "Traceback" not in result.output


def test_a_port_in_use_is_said_once_with_the_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = CliRunner().invoke(group, ["mock", "--port", str(port)])

    assert result.exit_code == 1
    assert result.output.startswith(f"Error: cannot listen on 127.0.0.1:{port}: Address already")
    assert result.output.count(str(port)) == 1


def test_a_port_that_no_machine_has_is_refused() -> None:
    result = CliRunner().invoke(group, ["mock", "--port", "99999"])

    assert result.exit_code == 2
    assert "99999 is not in the range 0<=x<=65535" in result.output


@pytest.mark.parametrize(
    ("text", "message"),
    [("[provider", "is not TOML"), ("provider = 5", "provider = 5: must be a table")],
)
def test_a_bad_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mock.toml"
    path.write_text(text, "utf-8")

    result = CliRunner().invoke(group, ["mock", "--port", "0", "--config", str(path)])

    assert result.exit_code == 1
    assert message in result.output
