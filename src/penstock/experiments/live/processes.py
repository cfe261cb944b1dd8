"""Starts `penstock mock` and `penstock serve` as processes of their own, and ends them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomlkit

from penstock.experiments.children import child
from penstock.experiments.job import Table, overlay
from penstock.sim.scenario import DEFAULT_CLASSES


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
    mock_file.write_text(tomlkit.dumps({"provider": provider}), "utf-8")
    stack = ExitStack()
    try:
        (mock_url,) = await asyncio.to_thread(
            stack.enter_context, child("mock", "--port", "0", "--config", str(mock_file))
        )
        config = overlay(sidecar_config(mock_url, policy), more or {})
        sidecar_file.write_text(tomlkit.dumps(config), "utf-8")
        (sidecar_url,) = await asyncio.to_thread(
            stack.enter_context, child("serve", "--config", str(sidecar_file))
        )
        yield Urls(sidecar_url, mock_url)
    finally:
        await asyncio.to_thread(stack.close)


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
