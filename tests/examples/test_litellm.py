"""LiteLLM's own client calls a provider over HTTP; it lives in an environment of its own."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer
from tests.conftest import ROOT

PYTHON = ROOT / ".venv-examples" / "bin" / "python"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="make test-examples runs it"),
]
PROVIDER = {"model": "slots", "slots": 8, "tokens_per_s": 500.0, "ttft_s": 0.02}


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    with MockServer(MockSettings(provider=PROVIDER)) as server:
        yield server


def run(script: Path, url: str) -> str:
    done = subprocess.run(
        [PYTHON, str(script)],
        cwd=ROOT,
        env={**os.environ, "PENSTOCK_EXAMPLE_URL": url, "LITELLM_LOCAL_MODEL_COST_MAP": "True"},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.fixture(scope="module")
def ways(mock: MockServer) -> dict[str, Any]:
    said = run(ROOT / "tests" / "examples" / "through_litellm.py", mock.url)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def test_the_example_says_what_it_promises(mock: MockServer) -> None:
    assert "6 answers" in run(ROOT / "examples" / "litellm_completion.py", mock.url)


@pytest.mark.parametrize("kind", ["client", "session", "handler"])
@pytest.mark.parametrize("how", ["", ", sync"])
def test_a_call_is_scheduled_in_its_class_and_its_usage_is_read(
    ways: dict[str, Any], kind: str, how: str
) -> None:
    assert ways[kind + how] == {"said": 9, "settled": [9], "classes": ["batch"], "flying": 0}


@pytest.mark.parametrize("kind", ["client", "session", "handler"])
def test_a_streamed_reply_frees_its_slot_though_litellm_closes_nothing(
    ways: dict[str, Any], kind: str
) -> None:
    streamed = ways[f"{kind}, streamed"]
    assert streamed["said"] > 1
    assert (len(streamed["settled"]), streamed["classes"]) == (1, ["batch"])
    assert streamed["flying"] == 0


def test_a_refusal_is_one_of_litellms_own_errors(ways: dict[str, Any]) -> None:
    assert ways["refused"] == {"raised": "Timeout"}


def test_every_call_reached_the_provider_over_http(mock: MockServer, ways: dict[str, Any]) -> None:
    requests = mock.stats()["requests"]
    assert requests["/v1/chat/completions"] >= 6
    assert requests["/v1/messages"] == 3
