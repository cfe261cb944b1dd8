"""Starts `penstock mock` and `penstock serve` as processes of their own, and ends them."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.errors import PenstockError
from penstock.experiments.job import Table, overlay
from penstock.sim.scenario import DEFAULT_CLASSES

START_S = 30.0
STOP_S = 10.0
_URL = re.compile(r"https?://[^\s/]+")


class LiveError(PenstockError):
    """A process did not start or did not answer."""


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the two listen, without /v1."""

    sidecar: str
    mock: str


@asynccontextmanager
async def sidecar_and_mock(
    provider: Table, policy: Table, folder: Path, *, more: Table | None = None
) -> AsyncIterator[Urls]:
    """Yield both URLs; both processes end with the block.

    Args:
        provider: the mock's, as in a scenario.
        policy: the sidecar's stack and limits, as in a scenario.
        folder: for their configuration files.
        more: tables of penstock.toml that are laid over what `sidecar_config` says.

    Raises:
        LiveError: one of them did not start.

    """
    mock_file, sidecar_file = folder / "mock.toml", folder / "penstock.toml"
    mock_file.write_text(toml_of({"provider": provider}), "utf-8")
    async with AsyncExitStack() as stack:
        mock_url = await stack.enter_async_context(
            _process("mock", "--port", "0", "--config", str(mock_file))
        )
        config = overlay(sidecar_config(mock_url, policy), more or {})
        sidecar_file.write_text(toml_of(config), "utf-8")
        sidecar_url = await stack.enter_async_context(
            _process("serve", "--config", str(sidecar_file))
        )
        yield Urls(sidecar_url, mock_url)


def sidecar_config(mock_url: str, policy: Table) -> dict[str, Any]:
    """Return penstock.toml as tables.

    Callers state their deadlines and what they know of their replies' lengths, as the
    simulation's do; for the rest the sidecar is as its defaults make it.
    """
    upstream = {"base_url": f"{mock_url}/v1", "auth": "none", "limits": policy.get("limits", {})}
    return {
        "server": {"port": 0, "drain_grace_s": 1.0},
        "admin": {"enabled": False},
        "anonymous": {"shortest_deadline_s": 0.001, "may_state_tokens": True},
        "upstreams": [upstream],
        "classes": [
            {"name": plan.name, "weight": plan.weight, "buckets": list(plan.buckets)}
            for plan in DEFAULT_CLASSES
        ],
        "scheduler": {
            layer: {"kind": spec} if isinstance(spec, str) else spec
            for layer, spec in policy.items()
            if layer != "limits"
        },
    }


@asynccontextmanager
async def _process(command: str, *arguments: str) -> AsyncIterator[str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "penstock.cli.main",
        command,
        *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    drain: asyncio.Task[None] | None = None
    try:
        url = await _url_of(process, command)
        drain = asyncio.create_task(_drain(process))
        yield url
    finally:
        if process.returncode is None:
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), STOP_S)
        except TimeoutError:
            process.kill()
            await process.wait()
        if drain is not None:
            await drain


async def _url_of(process: asyncio.subprocess.Process, command: str) -> str:
    said: list[str] = []
    try:
        async with asyncio.timeout(START_S):
            while line := await _line(process):
                said.append(line)
                found = _URL.search(line)
                if found and "listen" in line:
                    return found.group()
    except TimeoutError:
        said.append(f"(nothing more in {START_S:g} s)")
    raise LiveError(f"penstock {command} did not start: {' / '.join(said).strip()}")


async def _line(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None  # piped above
    return (await process.stdout.readline()).decode(errors="replace")


async def _drain(process: asyncio.subprocess.Process) -> None:
    """Read what it says so that it never blocks on a full pipe."""
    while await _line(process):
        pass


def toml_of(document: Mapping[str, Any]) -> str:
    """Write tables as TOML: one inline value a line, which JSON's text is for what we have."""
    return "".join(f"{name} = {_value(value)}\n" for name, value in document.items())


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        inner = ", ".join(f"{name} = {_value(each)}" for name, each in value.items())
        return "{" + inner + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_value(each) for each in value) + "]"
    return json.dumps(value)
