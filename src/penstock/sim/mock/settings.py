"""What a mock provider can be told."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from penstock.sim.mock.script import ScriptedReply


@dataclass(frozen=True, slots=True)
class MockSettings:
    """How the mock behaves.

    Attributes:
        provider: the table that `sim.providers.registry.build_provider` takes.
        seed: of reply texts and lengths, and of the provider's own chance.
        api_keys: accepted keys; empty accepts any caller, with a key or without.
        models: accepted model names; empty accepts any name.
        tick_s: how often the tokens that a stream has gained since are sent, in seconds.
        max_body_bytes: larger bodies get 413.
        script: replies written beforehand; the first that fits a call is given.

    """

    provider: Mapping[str, Any] = field(default_factory=lambda: {"model": "slots"})
    seed: int = 0
    api_keys: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    tick_s: float = 0.02
    max_body_bytes: int = 32 * 1024 * 1024
    script: "tuple[ScriptedReply, ...]" = ()

    def __repr__(self) -> str:
        return f"MockSettings(provider={dict(self.provider)!r}, seed={self.seed})"
