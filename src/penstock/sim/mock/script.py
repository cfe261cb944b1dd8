"""Replies that are written beforehand: a TOML file of [[replies]], the first that fits is given."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import Field

from penstock.schema.problem import Mistakes
from penstock.schema.reading import read
from penstock.schema.toml import read_toml
from penstock.schema.types import Complaints, Items, Table, Text
from penstock.sim.mock.call import StatedUsage
from penstock.sim.mock.faults import read_fault

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
