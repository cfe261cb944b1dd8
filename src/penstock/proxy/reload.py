"""Takes a changed penstock.toml while the sidecar runs: the whole file, or nothing of it."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from penstock.core.settings import PolicySpec
from penstock.errors import ConfigError, PenstockError
from penstock.proxy.config.load import Loaded, load
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


logger = logging.getLogger("penstock.proxy")

SETTLED_S, LOOK_AGAIN_S = 0.5, 0.1
"""A file that was written less than the first ago is looked at again after the second."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """What came of a reload.

    Attributes:
        generation: of the configuration that holds now; the one of the start is 1.
        changed: a sentence for each key that differs; keys themselves are never shown.
        refused: why nothing was changed; empty if the file holds now.
        needs_restart: the keys among `changed` that only a restart can take.

    """

    generation: int
    changed: tuple[str, ...] = ()
    refused: str = ""
    needs_restart: tuple[str, ...] = ()


def read_settled(path: str | Path) -> Loaded:
    """Return the file's content, unless somebody writes it just now.

    Half of a TOML file may be a good file with fewer tables, so that only time tells.

    Raises:
        ConfigError: it cannot be used, or it changed while it was looked at.

    """
    before = _stamp(path)
    if before is not None and not Path(path).is_file() and not Path(path).is_dir():
        raise ConfigError(f"{path} is a pipe or a device: is there a file that can be read again?")
    loaded = load(path)
    if before is not None and time.time() - before[0] / 1e9 < SETTLED_S:
        time.sleep(LOOK_AGAIN_S)
    if _stamp(path) != before:
        raise ConfigError(
            f"{path} changed while it was read: write another file beside it and rename that one"
        )
    return loaded


def _stamp(path: str | Path) -> tuple[int, int, int] | None:
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_mtime_ns, found.st_size, found.st_ino


@dataclass
class Reloader:
    """Reads the file again and has it taken, one reload after the other.

    Attributes:
        _holds: the configuration that holds.
        _read: reads the file again, in a thread of its own; None if there is no file.
        take: lets a configuration hold from now on, between two events of the scheduler, and
            returns its generation; raises a `PenstockError` and changes nothing if it cannot.
        _generation: returns the one that holds.
        outcomes: how many were taken, and how many refused.

    """

    _holds: Loaded
    _read: Callable[[], Loaded] | None
    take: Callable[[Loaded], None]
    _generation: Callable[[], int]
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    outcomes: dict[str, int] = field(default_factory=lambda: {"taken": 0, "refused": 0})

    async def reload(self) -> Reloaded:
        """Read, check and take the file; say in the log and in the answer what came of it."""
        async with self._turn:
            outcome = await self._reload()
        self.outcomes["refused" if outcome.refused else "taken"] += 1
        if outcome.refused:
            logger.error(
                "reload: refused, generation %d goes on: %s", outcome.generation, outcome.refused
            )
        else:
            said = "; ".join(outcome.changed) or "nothing has changed but what keys may hold"
            logger.info("reload: generation %d: %s", outcome.generation, said)
        return outcome

    async def _reload(self) -> Reloaded:
        if self._read is None:
            return self._refused("this sidecar was not started from a file")
        try:
            loaded = await asyncio.to_thread(self._read)
        except PenstockError as error:
            return self._refused(str(error).replace("; nothing was started.", ":"))
        found = differences(self._holds.config, loaded.config)
        changed = tuple(sentence for _, sentence in found)
        stuck = tuple(key for key, _ in found if needs_restart(key))
        if stuck:
            return self._refused(
                f"{', '.join(stuck)}: only a restart takes that; change the rest alone, or restart",
                changed,
                stuck,
            )
        try:
            self.take(loaded)
        except PenstockError as error:
            return self._refused(str(error), changed)
        self._holds = loaded
        return Reloaded(self._generation(), changed)

    def _refused(
        self, why: str, changed: tuple[str, ...] = (), stuck: tuple[str, ...] = ()
    ) -> Reloaded:
        return Reloaded(self._generation(), changed, why, stuck)
