"""Every example runs against `penstock mock` and says what it promises."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from penstock.sim.mock.script import MockSettings
from penstock.sim.mock.server import MockServer

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
HERE = {
    "any_function": "4 summaries",
    "anthropic_messages": "12 titles took",
    "langchain_anthropic_chat": "all of them went through the scheduler",
    "langchain_openai_batch": "6 answers; the first",
    "openai_chat": "answered in",
    "pydantic_ai_agent": "5 runs; the first said",
}
ELSEWHERE = {"litellm_completion"}
"""It has an environment of its own; see test_litellm.py, which `make test-examples` runs."""


@pytest.fixture(scope="module")
def mock() -> Iterator[MockServer]:
    provider = {"model": "slots", "slots": 8, "tokens_per_s": 500.0, "ttft_s": 0.02}
    with MockServer(MockSettings(provider=provider)) as server:
        yield server


def test_every_example_is_run() -> None:
    assert {path.stem for path in EXAMPLES.glob("*.py")} == HERE.keys() | ELSEWHERE


@pytest.mark.parametrize("name", HERE)
def test_the_example_runs(mock: MockServer, name: str) -> None:
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / f"{name}.py")],
        env={**os.environ, "PENSTOCK_EXAMPLE_URL": mock.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert HERE[name] in done.stdout
