"""Checks that several endpoints make on a body, each failing as the vendors' do."""

from collections.abc import Mapping
from typing import Any

from penstock.sim.mock.call import BodyError
from penstock.sim.mock.words import count_tokens

_TOKENS_PER_IMAGE = 85


def text_of(body: Mapping[str, Any], key: str) -> str:
    """Return a required, non-empty string."""
    value = body.get(key)
    if not isinstance(value, str) or not value:
        raise BodyError(f"you must provide a {key} parameter of type string", key)
    return value


def flag_of(body: Mapping[str, Any], key: str) -> bool:
    """Return an optional boolean; False if it is not there."""
    value = body.get(key)
    if value is not None and not isinstance(value, bool):
        raise BodyError(f"Invalid type for '{key}': expected a boolean, got {_kind(value)}", key)
    return bool(value)


def count_of(body: Mapping[str, Any], *keys: str, least: int = 1) -> int | None:
    """Return the first of these keys that is there, a whole number of at least that, or None."""
    for key in keys:
        value = body.get(key)
        if value is None:
            continue
        if isinstance(value, bool) or not isinstance(value, int):
            raise BodyError(
                f"Invalid type for '{key}': expected an integer, got {_kind(value)}", key
            )
        if value < least:
            raise BodyError(
                f"Invalid value for '{key}': {value} is less than the minimum of {least}", key
            )
        return value
    return None


def messages_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return a required, non-empty list of messages with a role each."""
    value = body.get("messages")
    if not isinstance(value, list) or not value:
        raise BodyError("'messages' must be a non-empty array", "messages")
    for number, message in enumerate(value):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            where = f"messages[{number}]"
            raise BodyError(f"'{where}' must be an object with a role", where)
    return value


def content_tokens(content: object, where: str) -> int:
    """Return how many tokens a message's content is: a string, parts, or nothing."""
    if content is None:
        return 0
    if isinstance(content, str):
        return count_tokens(content)
    if not isinstance(content, list):
        raise BodyError(f"'{where}' must be a string or an array of parts", where)
    return sum(_part_tokens(part, f"{where}[{n}]") for n, part in enumerate(content))


def tool_to_call(
    body: Mapping[str, Any], tools: list[Any], *, schema: str, missing: str
) -> tuple[str, Mapping[str, Any]] | None:
    """Return the tool that is asked for, else the first, with its arguments' schema.

    Args:
        body: says whether one must be called, and which.
        tools: those that there are.
        schema: the key of a tool's schema.
        missing: what the vendor answers where a tool has no name.

    """
    wanted = _tool_choice(body)
    if not tools or wanted is None:
        return None
    for tool in tools:
        if not isinstance(tool, Mapping) or not isinstance(tool.get("name"), str):
            raise BodyError(missing, "tools")
        if wanted in ("", tool["name"]):
            return tool["name"], tool.get(schema) or {"type": "object"}
    raise BodyError(f"tool_choice names {wanted!r}, which is not among the tools", "tool_choice")


def _tool_choice(body: Mapping[str, Any]) -> str | None:
    """Return the tool that must be called, "" for any, or None if none shall be."""
    choice = body.get("tool_choice", "auto")
    if choice == "none" or (isinstance(choice, Mapping) and choice.get("type") == "none"):
        return None
    if isinstance(choice, Mapping):
        function = choice.get("function")
        named = function.get("name") if isinstance(function, Mapping) else choice.get("name")
        return named if isinstance(named, str) else ""
    return ""


def tools_of(body: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the tools, or an empty list."""
    tools = body.get("tools")
    if tools is None:
        return []
    if not isinstance(tools, list) or not all(isinstance(t, Mapping) for t in tools):
        raise BodyError("'tools' must be an array of objects", "tools")
    return tools


def _part_tokens(part: object, where: str) -> int:
    if not isinstance(part, Mapping) or not isinstance(part.get("type"), str):
        raise BodyError(f"'{where}' must be an object with a type", where)
    if "image" in part["type"]:
        return _TOKENS_PER_IMAGE
    text = part.get("text", part.get("content", ""))
    return content_tokens(text, where) if isinstance(text, list) else count_tokens(str(text))


def _kind(value: object) -> str:
    return type(value).__name__
