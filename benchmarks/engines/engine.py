"""Starts an engine as a process of its own and reads what it says of itself."""

import re
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

FOLDER = Path(__file__).parent
ROOT = FOLDER.parent.parent
PYTHON = ROOT / ".venv-engines" / "bin" / "python"
VLLM_PYTHON = ROOT / ".venv-vllm" / "bin" / "python"
STOP_LIMIT_S = 20.0
_GAUGE = re.compile(
    r"^(?:llamacpp:requests_(?P<llama>processing|deferred)"
    r"|vllm:num_requests_(?P<vllm>running|waiting))(?:\{[^}]*\})? (?P<value>\S+)$",
    re.MULTILINE,
)


class EngineError(Exception):
    """An engine did not start or does not speak as expected."""


@dataclass(frozen=True, slots=True)
class Inside:
    """What happens inside of the engine: calls that it works on, calls that wait in it."""

    processing: int
    waiting: int


@dataclass(frozen=True, slots=True)
class Engine:
    """A server of the OpenAI API.

    Attributes:
        url: without /v1.
        slots: how many calls it works on at the same time.
        model: what it calls its model.

    """

    url: str
    slots: int
    model: str = "any"

    async def inside(self, client: httpx2.AsyncClient) -> Inside:
        """Read the engine's own gauges; nothing that is compared ever sees them.

        Raises:
            EngineError: neither llama.cpp's nor vLLM's gauges are there.

        """
        page = (await client.get(f"{self.url}/metrics")).text
        found = {m["llama"] or m["vllm"]: int(float(m["value"])) for m in _GAUGE.finditer(page)}
        processing = found.get("processing", found.get("running"))
        waiting = found.get("deferred", found.get("waiting"))
        if processing is None or waiting is None:
            raise EngineError(
                f"{self.url}/metrics has neither llama.cpp's nor vLLM's request gauges: "
                f"is it another engine, or llama.cpp without --metrics? It says: {page[:200]!r}"
            )
        return Inside(processing, waiting)


@contextmanager
def llama_cpp(slots: int, *, layers: int = 4, width: int = 384) -> Iterator[Engine]:
    """Write a random model and run llama.cpp's server on it; both are gone with the block.

    Raises:
        EngineError: its environment is not there, or it did not start.

    """
    if not PYTHON.exists():
        raise EngineError(f"{PYTHON} is missing: run `make setup-engines`")
    with tempfile.TemporaryDirectory(prefix="penstock-engine-") as folder:
        model = Path(folder, "model.gguf")
        size = ("--layers", str(layers), "--width", str(width))
        subprocess.run([PYTHON, FOLDER / "model.py", model, *size], check=True)
        with _child([str(PYTHON), str(FOLDER / "llama_server.py"), str(model), str(slots)]) as url:
            yield Engine(url, slots)


@contextmanager
def vllm(slots: int) -> Iterator[Engine]:
    """Write a random model and run vLLM's server on it; both are gone with the block.

    Raises:
        EngineError: its environment is not there, or it did not start.

    """
    if not VLLM_PYTHON.exists():
        raise EngineError(
            f"{VLLM_PYTHON} is missing: docs/explanation/engines.md says how to install"
        )
    with tempfile.TemporaryDirectory(prefix="penstock-engine-") as folder:
        subprocess.run([VLLM_PYTHON, FOLDER / "vllm_model.py", folder], check=True)
        with _child([str(VLLM_PYTHON), str(FOLDER / "vllm_server.py"), folder, str(slots)]) as url:
            yield Engine(url, slots)


@contextmanager
def _child(words: Sequence[str]) -> Iterator[str]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert process.stdin is not None  # piped above
        assert process.stdout is not None
        try:
            first = process.stdout.readline()
            found = re.search(r"http://\S+", first)
            if found is None:
                log.seek(0)
                said = log.read().decode(errors="replace")[-2000:]
                raise EngineError(f"{Path(words[1]).name} did not start: {first}{said}")
            yield found.group()
        finally:
            process.stdin.close()
            try:
                process.wait(STOP_LIMIT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
