"""What a mock can be told: settings, replies written beforehand (`[[replies]]`), faults on demand.

Of the replies the first that fits is given; the header `x-mock-fault` asks for a fault.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field

from penstock.schema.problem import Mistakes
from penstock.schema.reading import read, read_toml
from penstock.schema.types import Complaints, Items, Table, Text
from penstock.sim.mock.call import StatedUsage

_KINDS = (
    "reset",
    "reset_at_once",
    "stall",
    "truncate",
    "bad_sse",
    "not_json",
    "slow_first_token",
    "status",
    "quota",
)
_USUAL_DELAY_S = 10.0


class BrokenOnPurposeError(Exception):
    """The connection is to be broken; nothing more is sent."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What shall go wrong with one call.

    Attributes:
        kind: `reset` (TCP reset after the first token), `reset_at_once`, `stall` (nothing after
            the first token), `truncate` (the body ends early, cleanly closed), `bad_sse` (an
            event that is no JSON, then the end), `not_json` (200 with an HTML page),
            `slow_first_token`, `status`, `quota` (429, the account is spent), or "" for none.
        delay_s: of `slow_first_token`. status: of `status`.

    """

    kind: str = ""
    delay_s: float = 0.0
    status: int = 0


def read_fault(header: str) -> Fault:
    """Return the fault that the header asks for: `kind`, `slow_first_token:3` or `status:503`.

    Raises:
        ValueError: no fault of that name, or a number that is none.

    """
    kind, _, value = header.partition(":")
    if kind and kind not in _KINDS:
        raise ValueError(f"x-mock-fault: {header!r}: must be one of {', '.join(_KINDS)}")
    if kind == "slow_first_token":
        return Fault(kind, delay_s=float(value or _USUAL_DELAY_S))
    if kind == "status":
        status = int(value or 500)
        if not 400 <= status <= 599:
            raise ValueError(f"x-mock-fault: {header!r}: must be a status from 400 to 599")
        return Fault(kind, status=status)
    return Fault(kind)


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


_Count = Annotated[int, Field(ge=0)]


class ScriptedReply(Table):
    """What to answer, and to which calls."""

    path: Text | None = Field(None, description="Fits calls of this path, such as /v1/messages.")
    model: Text | None = Field(None, description="Fits calls of this model.")
    contains: Text | None = Field(
        None, description="Fits calls whose last message, as JSON, contains this text."
    )
    text: str | None = Field(None, description="The reply's text. Left out: drawn as ever.")
    tool: Text | None = Field(None, description="The tool that the reply calls, instead of a text.")
    arguments: dict[str, Any] | None = Field(None, description="What the tool is called with.")
    thinking: Text | None = Field(None, description="The text of Anthropic's thinking block.")
    prompt_tokens: _Count | None = Field(None, description="What the usage says of the prompt.")
    output_tokens: _Count | None = Field(None, description="What the usage says of the reply.")
    cached_tokens: _Count | None = Field(
        None, description="How much of the prompt the usage says came from the cache."
    )
    fault: Text | None = Field(None, description="What goes wrong, as x-mock-fault says it.")

    def complaints(self) -> Complaints:
        """Yield what contradicts itself."""
        if self.arguments is not None and self.tool is None:
            yield "arguments", "needs a tool that is called with them"
        if self.text is not None and self.tool is not None:
            yield "text", "is no reply beside a tool: one of the two"
        try:
            read_fault(self.fault or "")
        except ValueError as error:
            yield "fault", str(error)

    def fits(self, path: str, body: Mapping[str, Any]) -> bool:
        """Return whether this is the reply to a call."""
        return (
            self.path in (None, path)
            and self.model in (None, body.get("model"))
            and (self.contains is None or self.contains in _last_of(body))
        )

    @property
    def usage(self) -> StatedUsage:
        """What it says of the usage."""
        return StatedUsage(self.prompt_tokens, self.output_tokens, self.cached_tokens)


class Script(Table):
    """A file of replies."""

    replies: Items[ScriptedReply] = Field((), description="The first that fits a call is given.")


def read_script(path: Path) -> tuple[ScriptedReply, ...]:
    """Return the replies of a file.

    Raises:
        Mistakes: everything that is wrong with it.
        ConfigError: it is no TOML.
        OSError: it cannot be read.

    """
    reading = read(Script, read_toml(path))
    if reading.problems or reading.table is None:
        raise Mistakes([problem.below(str(path)) for problem in reading.problems])
    return reading.table.replies


def _last_of(body: Mapping[str, Any]) -> str:
    """Return a body's last message, input or prompt as JSON."""
    for key in ("messages", "input", "prompt"):
        given = body.get(key)
        if given:
            last = given[-1] if isinstance(given, list) else given
            return orjson.dumps(last).decode()
    return ""
