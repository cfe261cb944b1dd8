"""How two configurations differ, in the words of the file, and what of it needs a restart."""

from collections.abc import Iterator
from typing import Any

from penstock.core.settings import PolicySpec
from penstock.proxy.config.models import Config
from penstock.schema.problem import shown
from penstock.schema.types import Table

LIVE = (
    "upstreams",
    "classes",
    "anonymous",
    "keys",
    "estimates",
    "scheduler",
    "server.hosts",
    "server.origins",
    "server.max_body_bytes",
    "server.max_held_bytes",
    "server.body_timeout_s",
    "server.drain_grace_s",
    "admin.token_env",
    "admin.token_file",
    "admin.hosts",
    "admin.origins",
    "log.level",
    "shadow",
    "fallbacks",
)
"""Tables and keys that a reload changes; everything else is looked at once, at the start."""


def differences(old: Config, new: Config) -> list[tuple[str, str]]:
    """Return the keys that differ, each with a sentence: what it was and what it is."""
    return list(_of_tables("", old, new))


def needs_restart(key: str) -> bool:
    """Return whether a key is looked at only at the start."""
    return not any(key == live or key.startswith((f"{live}.", f"{live}[")) for live in LIVE)


def _of_tables(place: str, old: Table, new: Table) -> Iterator[tuple[str, str]]:
    for name in type(new).model_fields:
        key = f"{place}.{name}" if place else name
        before, after = getattr(old, name), getattr(new, name)
        if before == after:
            continue
        if isinstance(before, Table) and isinstance(after, Table):
            yield from _of_tables(key, before, after)
        elif _are_named(before) and _are_named(after):
            yield from _of_lists(key, before, after)
        elif _are_by_name(before) and _are_by_name(after):
            yield from _of_named(key, before, after)
        else:
            yield key, f"{key}: {_words(key, before)} -> {_words(key, after)}"


def _are_named(value: Any) -> bool:
    return isinstance(value, tuple) and all(hasattr(each, "name") for each in value)


def _are_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(each, Table) for each in value.values())


def _of_lists(key: str, old: tuple[Any, ...], new: tuple[Any, ...]) -> Iterator[tuple[str, str]]:
    before = {each.name: each for each in old}
    after = {each.name: each for each in new}
    yield from _of_named(key, before, after)
    common = [name for name in after if name in before]
    if common != [name for name in before if name in after]:
        yield key, f"{key}: the order is now {', '.join(after)}"


def _of_named(key: str, before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name in (each for each in before if each not in after):
        yield f"{key}[{name}]", f"{key}[{name}]: removed"
    for name, each in after.items():
        if name not in before:
            yield f"{key}[{name}]", f"{key}[{name}]: added"
        elif before[name] != each:
            yield from _of_tables(f"{key}[{name}]", before[name], each)


def _words(key: str, value: Any) -> str:
    if value is None:
        return "left out"
    if isinstance(value, Table):
        return "a table"
    if isinstance(value, PolicySpec):
        options = "".join(f", {name} = {option}" for name, option in value.options.items())
        return f"{value.kind}{options}"
    if isinstance(value, tuple):
        return f"[{', '.join(shown(key, each) for each in value)}]"
    return shown(key, value)
